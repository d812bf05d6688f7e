-- Claim the agent tasks of several batches, before they are sent. Batches come as pairs: message id, packed UUIDs.
-- Reply: for those refused, the message that wanted it, UUID, and the message that holds it.
-- include lists, messages, records, claims
local _, now = clock()
local refused = {}
purge_claims(now)

-- Which of its agent tasks a message is granted, and who had those.
local function granted_to(id, uuids, before)
  if not has_any(before) then
    return uuids, before
  end
  local granted, holders_before = {}, {}
  for i, uuid in ipairs(uuids) do
    if before[i] == id or is_forced or not live_holder(before[i], now) then
      granted[#granted + 1], holders_before[#holders_before + 1] = uuid, before[i]
    else
      refused[#refused + 1], refused[#refused + 2], refused[#refused + 3] = id, uuid, before[i]
    end
  end
  return granted, holders_before
end

for at = rest, #ARGV, 2 do
  local id, packed = ARGV[at], ARGV[at + 1]
  local uuids = split(packed)
  begin_claims(id)
  local granted, holders_before = granted_to(id, uuids, in_chunks('HMGET', holders, uuids))
  if #granted > 0 then
    -- Sent again while it runs already: the delivery that runs goes on.
    local is_queued = give(id, granted, holders_before, granted == uuids and packed) or select(2, standing(id))
    keep(is_queued and queued or running, id, now, ttl, 'GT')
  end
end
expire_claims(ttl)
return refused
