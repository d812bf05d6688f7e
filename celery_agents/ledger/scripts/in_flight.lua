-- Reply: how many claims have not lapsed.
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
  set_lapsed(0, 0)
  return number_between('(' .. whole(now), '+inf')
end
read_lapsed(known[2])
local since, number = lapsed and '(' .. whole(lapsed.last) or '-inf', lapsed and lapsed.number or 0
local more = number_between(since, whole(now))
if more > 0 then
  set_lapsed(now, number + more)
end
return tonumber(known[1] or 0) - number - more
