-- Pause a stage; of several pauses the one that ends last counts.
-- Reply: milliseconds of pause.
if redis.call('PTTL', pause) < ttl then
  redis.call('SET', pause, '1', 'PX', whole(ttl))
end
return milliseconds_left(pause)
