-- Find records by the UUIDs of agent tasks, or by data hashes.
-- Reply: name and record, alternating; an empty record is one that is too long.
local _, now = clock()
local names = {}
if is_by_data then
  for _, data_hash in ipairs(uuids) do
    -- '0' is the character after '/'. Nobody has a hundred agent tasks for one data unit.
    local range = {'[' .. data_hash .. '/', '(' .. data_hash .. '0', 'LIMIT', 0, 100}
    for _, entry in ipairs(redis.call('ZRANGEBYLEX', by_data, unpack(range))) do
      names[#names + 1] = string.sub(entry, #data_hash + 2)
    end
  end
else
  names = names_at_all(stages, uuids)
end
local values, scores = in_chunks('HMGET', store, names), in_chunks('ZMSCORE', times, names)
local reply = {}
for i, name in ipairs(names) do
  if values[i] and scores[i] and tonumber(scores[i]) > now - kept then
    reply[#reply + 1] = name
    reply[#reply + 1] = presentable(values[i], longest)
  end
end
return reply
