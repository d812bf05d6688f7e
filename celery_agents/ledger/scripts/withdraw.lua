-- Take back a message that waits in its queue: from now on no worker will begin it. Its claims are released.
-- Reply: whether it is taken back; not where a worker has taken it over, or nothing is claimed for it.
-- include lists, messages, records, claims
if not redis.call('ZSCORE', queued, message_id) then
  return 0
end
local _, now = clock()
redis.call('ZADD', cancelled, whole(now + ttl), message_id)
expire_no_sooner(cancelled, ttl)
local released, ids = held_by(message_id), {}
for i = 1, #released do
  ids[i] = message_id
end
drop(released, ids)
return 1
