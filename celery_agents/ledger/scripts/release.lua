-- Release claims: those of one message, or of any (''). Without agent tasks it is all that the message has.
-- Reply: how many were released.
-- include lists, messages, records, claims
local uuids = split(task_uuids)
if #uuids == 0 and message_id ~= '' then
  uuids = held_by(message_id)
end
local released, ids = {}, {}

local may_be_released = {[false] = false}
local function may_release(id)
  if may_be_released[id] == nil then
    may_be_released[id] = (message_id == '' or id == message_id) and has_claims(id)
      and not (is_queued_only and redis.call('ZSCORE', running, id))
  end
  return may_be_released[id]
end

for i, id in ipairs(in_chunks('HMGET', holders, uuids)) do
  if may_release(id) then
    released[#released + 1], ids[#ids + 1] = uuids[i], id
  end
end
drop(released, ids)
return #released
