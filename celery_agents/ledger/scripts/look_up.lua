-- Find records by the UUIDs of agent tasks.
-- Reply: name and record, alternating; an empty record is one that is too long.
-- include lists, records
local _, now = clock()
local uuids, reply = split(uuids), {}

local function add(name, text)
  reply[#reply + 1] = name
  reply[#reply + 1] = presentable(text, longest)
end

for _, stage in ipairs(redis.call('ZRANGE', stages, 0, -1)) do
  local names = names_at(stage, uuids)
  local texts, scores = in_chunks('HMGET', outcomes, names), in_chunks('ZMSCORE', outcome_times, names)
  -- In the slot of the others, as all keys of a project.
  for i, holder in ipairs(in_chunks('HMGET', holders_prefix .. stage, uuids)) do
    local text, group = record_in_group(uuids[i], holder, stage)
    if text and group.at > now - kept then
      add(names[i], text)
    elseif texts[i] and scores[i] and tonumber(scores[i]) > now - kept then
      add(names[i], texts[i])
    end
  end
end
return reply
