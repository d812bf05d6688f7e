-- Let the claims of messages that are in their queue last longer. What a worker has taken over meanwhile is its own, and
-- what it is done with must not be claimed again.
-- Reply: how many claims there are.
-- include lists, messages, records, claims
local _, now = clock()
local number = 0
for at = rest, #ARGV do
  local id = ARGV[at]
  if redis.call('ZSCORE', queued, id) then
    keep(queued, id, now, ttl, 'GT')
    number = number + tonumber(redis.call('HGET', sizes, id) or 0)
  end
end
expire_claims(ttl)
return number
