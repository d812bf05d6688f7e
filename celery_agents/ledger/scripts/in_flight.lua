-- Reply: how many claims have not lapsed.
-- include lists, messages, records, claims
local _, now = clock()
local number = 0
for _, deadlines in ipairs({queued, running}) do
  local live = redis.call('ZRANGEBYSCORE', deadlines, '(' .. whole(now), '+inf')
  for _, size in ipairs(in_chunks('HMGET', sizes, live)) do
    number = number + math.max(tonumber(size or 0), 0)
  end
end
return number
