-- Before a commit: which claims are still this delivery's? Those are renewed.
-- Reply: {lost UUIDs}, is cancelled, is superseded by a newer delivery of this message, milliseconds of pause.
local _, now = clock()
local mine = token .. ' ' .. message_id
local held, values, lost = {}, {}, {}
for i, value in ipairs(in_chunks('HMGET', holders, task_uuids)) do
  if value == mine then
    held[#held + 1] = task_uuids[i]
    values[#values + 1] = mine
  else
    lost[#lost + 1] = task_uuids[i]
  end
end
set_claims(deadlines, holders, held, values, now, ttl)
local newest = redis.call('HGET', message, 'token')
if newest == token then
  expire_no_sooner(message, ttl + MESSAGE_KEPT)
end
return {lost, is_cancelled(cancelled, message_id, now) and 1 or 0, newest and newest ~= token and 1 or 0,
        milliseconds_left(pause)}
