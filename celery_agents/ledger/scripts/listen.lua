-- Note that a worker listens to a queue, and forget those that have not said so any more.
local _, now = clock()
redis.call('ZADD', listeners, whole(now + ttl), worker)
redis.call('ZREMRANGEBYSCORE', listeners, '-inf', whole(now))
expire_no_sooner(listeners, ttl)
return 0
