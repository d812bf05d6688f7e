-- Reply: how many claims have not lapsed.
local _, now = clock()
return redis.call('ZCOUNT', deadlines, '(' .. whole(now), '+inf')
