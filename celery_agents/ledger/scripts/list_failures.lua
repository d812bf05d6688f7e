-- List failures, newest first, by stage ('' for any), error type ('' for any) and time.
-- Reply: how many there are, {name, record, ...} of those asked for.
-- include lists
local _, now = clock()
local oldest = '(' .. whole(math.max(since, now - kept))
local names = redis.call('ZREVRANGEBYSCORE', times, '+inf', oldest, 'LIMIT', 0, most)

local function is_wanted(name, value)
  if stage ~= '' and string.sub(name, -#stage) ~= stage then
    return false
  end
  if error_type == '' then
    return true
  end
  local record = parse_record(value)
  return record and (record.error_type == error_type
    or string.sub(record.error_type, -#error_type - 1) == '.' .. error_type)
end

local number, reply = 0, {}
for i, value in ipairs(in_chunks('HMGET', store, names)) do
  if value and is_wanted(names[i], value) then
    number = number + 1
    if number > skipped and number <= skipped + wanted then
      reply[#reply + 1] = names[i]
      reply[#reply + 1] = presentable(value, longest)
    end
  end
end
return {number, reply}
