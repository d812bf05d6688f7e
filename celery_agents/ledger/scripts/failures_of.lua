-- Find failures by the UUIDs of agent tasks.
-- Reply: name and record, alternating; an empty record is one that is too long.
-- include lists
local _, now = clock()
local names, reply = names_at_all(stages, split(uuids)), {}
local texts, scores = in_chunks('HMGET', store, names), in_chunks('ZMSCORE', times, names)
for i, name in ipairs(names) do
  if texts[i] and scores[i] and tonumber(scores[i]) > now - kept then
    reply[#reply + 1] = name
    reply[#reply + 1] = presentable(texts[i], longest)
  end
end
return reply
