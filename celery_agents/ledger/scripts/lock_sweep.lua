-- Take or renew the lock on sweeping a stage. Reply: whether the holder has it.
local current = redis.call('GET', lock)
if current and current ~= holder then
  return 0
end
redis.call('SET', lock, holder, 'PX', whole(ttl))
return 1
