-- Ask for a permit to call Encord. Calls are so many microseconds apart; the key says when the next one may be.
-- Reply: whether it is granted, and microseconds until then.
local now = clock()
local at = math.max(tonumber(redis.call('GET', next_call) or 0), now)
if at - now > longest then
  return {0, at - now}
end
redis.call('SET', next_call, whole(at + apart), 'PX', whole(math.ceil((at + apart - now) / 1000)))
return {1, at - now}
