-- Release claims: those of one message, or of any (''). Without agent tasks it is all that the message has.
-- Reply: how many were released.
local uuids = task_uuids
if #uuids == 0 and message_id ~= '' then
  uuids = held_by(message_id)
end
local released, ids = {}, {}
for i, id in ipairs(in_chunks('HMGET', holders, uuids)) do
  if id and (message_id == '' or id == message_id) and not (is_queued_only and redis.call('ZSCORE', running, id)) then
    released[#released + 1], ids[#ids + 1] = uuids[i], id
  end
end
drop(released, ids)
return #released
