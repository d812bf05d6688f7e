-- Claim the agent tasks of several batches, before they are sent. Batches come as pairs: message id, packed UUIDs.
-- Reply: for those refused, the message that wanted it, UUID, and the message that holds it.
local _, now = clock()
local refused = {}
purge_claims(deadlines, holders, now)
for at = rest, #ARGV, 2 do
  local message_id, uuids = ARGV[at], split(ARGV[at + 1])
  local claims = read_claims(deadlines, holders, uuids, now)
  local granted, values = {}, {}
  for i, uuid in ipairs(uuids) do
    local claim = claims[i]
    local is_own = claim and claim.message_id == message_id
    if is_own or is_forced or not holder_of(claim, cancelled, now) then
      granted[#granted + 1] = uuid
      -- Sent again while it runs already: the token of the delivery that runs stays good.
      values[#values + 1] = (is_own and whole(claim.token) or '0') .. ' ' .. message_id
    else
      refused[#refused + 1] = message_id
      refused[#refused + 1] = uuid
      refused[#refused + 1] = claim.message_id
    end
  end
  set_claims(deadlines, holders, granted, values, now, ttl)
end
return refused
