-- Reply: how many claims have not lapsed. What has lapsed since somebody asked is read, and not each message.
-- include lists, messages
local _, now = clock()

-- How many claims there are of messages that last until some time in a range.
local function number_between(first, last)
  local number = 0
  for _, deadlines in ipairs({queued, running}) do
    local ids = redis.call('ZRANGEBYSCORE', deadlines, first, last)
    for _, size in ipairs(in_chunks('HMGET', sizes, ids)) do
      number = number + tonumber(size or 0)
    end
  end
  return number
end

local known = redis.call('HMGET', sizes, TOTAL, LAPSED)
local messages = redis.call('HLEN', sizes) - (known[1] and 1 or 0) - (known[2] and 1 or 0)
-- Some of it was lost, as where Redis was short of memory: only what is left counts.
if messages ~= redis.call('ZCARD', queued) + redis.call('ZCARD', running) then
  redis.call('HDEL', sizes, LAPSED)
  return number_between('(' .. whole(now), '+inf')
end
local last, number = string.match(known[2] or '', '^(%d+) (%d+)$')
if last and tonumber(last) > now then
  last, number = nil, nil  -- The clock was set back.
end
local more = number_between(last and '(' .. last or '-inf', whole(now))
number = tonumber(number or 0) + more
if more > 0 then
  redis.call('HSET', sizes, LAPSED, whole(now) .. ' ' .. whole(number))
end
return tonumber(known[1] or 0) - number
