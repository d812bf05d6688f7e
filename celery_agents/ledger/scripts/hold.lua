-- Before a commit: which claims are still this delivery's? Those are renewed.
-- Reply: {lost UUIDs}, is cancelled, is superseded by a newer delivery of this message, milliseconds of pause.
-- include lists, messages, records, claims
local _, now = clock()
local lost, task_uuids, newest = {}, split(task_uuids), redis.call('HGET', message, 'token')
if is_newest(newest, message_id, token) and has_claims(message_id) then
  for i, holder in ipairs(in_chunks('HMGET', holders, task_uuids)) do
    if holder ~= message_id then
      lost[#lost + 1] = task_uuids[i]
    end
  end
  if #lost < #task_uuids then
    local _, is_queued = standing(message_id)
    keep(is_queued and queued or running, message_id, now, ttl, 'XX', 'GT')
    expire_claims(ttl)
  end
else
  lost = task_uuids
end
if newest == token then
  expire_no_sooner(message, ttl + MESSAGE_KEPT)
end

-- A newer delivery that has ended has left no token. What it left is claims, where something went round again, or records.
local function is_superseded()
  if newest or token == '0' then
    return newest and newest ~= token
  end
  if has_claims(message_id) then
    return true
  end
  local my_token = tonumber(token)
  for _, each in ipairs(records_of(lost, in_chunks('HMGET', holders, lost), stage)) do
    local record = parse_record(each)
    if record and record.message_id == message_id and record.token > my_token then
      return true
    end
  end
  return false
end

return {lost, is_cancelled(cancelled, message_id, now) and 1 or 0, is_superseded() and 1 or 0, milliseconds_left(pause)}
