-- Note how a delivery died, for the next one; where nobody knows of the message there is nothing to note it at.
-- Reply: whether it was noted.
if redis.call('EXISTS', message) == 0 then
  return 0
end
redis.call('HSET', message, 'death', how)
return 1
