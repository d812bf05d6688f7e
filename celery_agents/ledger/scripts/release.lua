-- Release claims: those of one message, or of any ('').
-- Reply: how many were released.
local released = {}
for i, value in ipairs(in_chunks('HMGET', holders, task_uuids)) do
  local token, holder = parse_holder(value)
  if token and (message_id == '' or holder == message_id) and not (is_queued_only and token > 0) then
    released[#released + 1] = task_uuids[i]
  end
end
drop_claims(deadlines, holders, released)
return #released
