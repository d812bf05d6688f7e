-- What the scripts about outcomes share. It stands after the names of their keys, see __init__.py.
--
-- `outcomes` has two kinds of records. That of one agent task, "<agent task>/<stage>", is for what is like nothing else.
-- What a message settles alike at once is a group, "<holder> <stage>": it says once what is true of all. The entries of
-- its agent tasks in `holders` lead to it, and where these are all that their message still had, they do so already: a
-- message without claims stands for its group. Otherwise they get a name that no message has, for it begins with a space.
-- So whoever is in `holders` has an agent task if it is in `sizes`, and else only tells where its outcome is. An entry
-- that leads to a group is newer than a record of the agent task's own.
--
-- A group is a line with token, milliseconds, kind, message and number; then the packed agent tasks, the packed data
-- hashes, a line with how the JSON of each goes on after its title, and a line for each title.

local function parse_group(text)
  local head, message_id, number, start = string.match(text or '', '^(%d+ %d+ %u+ )(%S+) (%d+)\n()')
  number = tonumber(number)
  if number and #text >= start - 1 + 64 * number then
    return {text = text, head = head, message_id = message_id, number = number, tasks = start,
            data = start + 32 * number, rest = start + 64 * number}
  end
end

local function tasks_of(group)
  return split(string.sub(group.text, group.tasks, group.data - 1))
end

local function task_at(group, place)
  local at = group.tasks + 32 * (place - 1)
  return string.sub(group.text, at, at + 31)
end

-- Which of a packed list, from `first` to before `last` in a text, a UUID is; nil where it is none of them.
local function place_in(text, first, last, uuid)
  local at = string.find(text, uuid, first, true)
  while at and at < last do
    if (at - first) % 32 == 0 then
      return (at - first) / 32 + 1
    end
    at = string.find(text, uuid, at + 1, true)
  end
end

local function lines(text)
  local list = {}
  for line in string.gmatch(text, '([^\n]*)\n') do
    list[#list + 1] = line
  end
  return list
end

-- The record of the agent task at a place of a group, as if it had been written alone.
local function record_at(group, place)
  group.lines = group.lines or lines(string.sub(group.text, group.rest))
  local hash_at = group.data + 32 * (place - 1)
  return group.head .. string.sub(group.text, hash_at, hash_at + 31) .. ' ' .. group.message_id
    .. ' -\n{"outcome":{"data_title":"' .. (group.lines[place + 1] or '') .. '"' .. (group.lines[1] or '')
end

local groups_read = {}

-- The group that an entry of `holders` leads to, if it does.
local function group_of(holder, stage)
  local name = holder .. ' ' .. stage
  if groups_read[name] == nil then
    local group = parse_group(redis.call('HGET', outcomes, name))
    if group then
      group.at = tonumber(redis.call('ZSCORE', outcome_times, name) or 0)
    end
    groups_read[name] = group or false
  end
  return groups_read[name] or nil
end

-- The record of an agent task in the group that its entry in `holders` leads to, and that group.
local function record_in_group(uuid, holder, stage)
  local group = holder and group_of(holder, stage)
  local place = group and place_in(group.text, group.tasks, group.data, uuid)
  if place then
    return record_at(group, place), group
  end
end

-- The records of agent tasks at a stage; `before` are their entries in `holders`.
local function records_of(uuids, before, stage)
  local records = in_chunks('HMGET', outcomes, names_at(stage, uuids))
  for i, uuid in ipairs(uuids) do
    records[i] = record_in_group(uuid, before[i], stage) or records[i]
  end
  return records
end

-- Of agent tasks those whose entries say what they are expected to say.
local function led_by(holder, uuids, key)
  local led, current = {}, in_chunks('HMGET', key, uuids)
  for i = 1, #current do
    if current[i] == holder then
      led[#led + 1] = uuids[i]
    end
  end
  return led
end
