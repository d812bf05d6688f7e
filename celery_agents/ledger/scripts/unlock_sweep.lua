-- Give the lock on sweeping a stage back. Reply: whether it was the holder's.
if redis.call('GET', lock) ~= holder then
  return 0
end
return redis.call('DEL', lock)
