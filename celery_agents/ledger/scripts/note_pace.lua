-- Note how many microseconds how many agent tasks took. What was noted before counts a fifth less with each message.
local KEPT = 0.8
local before = redis.call('HMGET', pace, 'took', 'number')
redis.call('HSET', pace, 'took', string.format('%.3f', tonumber(before[1] or 0) * KEPT + took),
           'number', string.format('%.3f', tonumber(before[2] or 0) * KEPT + number))
redis.call('PEXPIRE', pace, whole(ttl))
return 0
