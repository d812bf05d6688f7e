-- Reply: how many workers listen to a queue.
local _, now = clock()
return redis.call('ZCOUNT', listeners, '(' .. whole(now), '+inf')
