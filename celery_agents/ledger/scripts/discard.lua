-- Forget that agent tasks failed or crashed, at all stages.
-- Reply: how many failures there were.
-- include lists
local names = names_at_all(stages, split(task_uuids))
local number = 0
for _, name in ipairs(names) do
  number = number + redis.call('HDEL', store, name)
end
in_chunks('ZREM', times, names)
in_chunks('ZREM', crashes, names)
return number
