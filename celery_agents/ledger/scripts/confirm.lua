-- Let the claims of messages that are in their queue last longer. What a worker has taken over meanwhile is its own, and
-- what it is done with must not be claimed again. Batches come as pairs: message id, packed UUIDs.
-- Reply: how many claims there are.
local _, now = clock()
local number = 0
for at = rest, #ARGV, 2 do
  local mine, uuids = '0 ' .. ARGV[at], split(ARGV[at + 1])
  local queued, values = {}, {}
  for i, value in ipairs(in_chunks('HMGET', holders, uuids)) do
    if value == mine then
      queued[#queued + 1], values[#values + 1] = uuids[i], mine
    end
  end
  set_claims(deadlines, holders, queued, values, now, ttl)
  number = number + #queued
end
return number
