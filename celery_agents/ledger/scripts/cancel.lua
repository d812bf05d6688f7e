-- Mark messages as cancelled.
-- include lists
local _, now = clock()
local scored = {}
for at = rest, #ARGV do
  scored[#scored + 1] = whole(now + ttl)
  scored[#scored + 1] = ARGV[at]
end
in_chunks('ZADD', cancelled, scored)
redis.call('ZREMRANGEBYSCORE', cancelled, '-inf', whole(now))
redis.call('ZREMRANGEBYRANK', cancelled, 0, -most - 1)
expire_no_sooner(cancelled, ttl)
return 0
