-- Note that a stage is to be swept by a message, unless one is on its way that shall do it.
-- Reply: the message that shall do it, and whether it is known to be on its way.
local _, now = clock()
local id, sent_at = string.match(redis.call('GET', asked) or '', '^(%S+) (%d+)$')
if not id then
  redis.call('SET', asked, message_id .. ' 0', 'PX', whole(ttl))
  return {message_id, 0}
end
-- One that was sent long ago may have been lost with its queue, and one that was not sent yet may never be.
return {id, now - tonumber(sent_at) < trusted and 1 or 0}
