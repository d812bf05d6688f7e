-- Note that the message which shall sweep a stage is in its queue, if it has not begun already.
local _, now = clock()
local id = string.match(redis.call('GET', asked) or '', '^(%S+) %d+$')
if id == message_id then
  redis.call('SET', asked, id .. ' ' .. whole(now), 'PX', whole(ttl))
end
return 0
