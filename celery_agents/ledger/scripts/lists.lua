-- Lists, and what is known of agent tasks under names of their own.

-- Lua's stack holds 8000 values, so long lists go to Redis in pieces. Even, so that pairs stay together.
local CHUNK = 1000

-- UUIDs come as one text of 32 digits each: a thousand arguments cost more than the claims themselves.
local function split(packed)
  local uuids = {}
  for start = 1, #packed, 32 * CHUNK do
    local number = math.min(CHUNK, math.floor((#packed - start + 1) / 32))
    -- One call for all of them costs less than one for each. What follows the last one is where it ended.
    local piece = {struct.unpack(string.rep('c32', number), packed, start)}
    piece[number + 1] = nil
    if number == #packed / 32 then
      return piece
    end
    for i = 1, number do
      uuids[#uuids + 1] = piece[i]
    end
  end
  return uuids
end

-- A list without what it has already had.
local function unique(list)
  local seen, kept = {}, {}
  for _, each in ipairs(list) do
    if not seen[each] then
      seen[each], kept[#kept + 1] = true, each
    end
  end
  return kept
end

-- Whether anything in a reply is there.
local function has_any(list)
  for i = 1, #list do
    if list[i] then
      return true
    end
  end
  return false
end

local function in_chunks(command, key, list)
  if #list > 0 and #list <= CHUNK then
    return redis.call(command, key, unpack(list))
  end
  local replies = {}
  for start = 1, #list, CHUNK do
    local reply = redis.call(command, key, unpack(list, start, math.min(start + CHUNK - 1, #list)))
    if type(reply) == 'table' then
      for _, each in ipairs(reply) do
        replies[#replies + 1] = each
      end
    end
  end
  return replies
end

-- What is known of an agent task is kept under its UUID and its stage's: it keeps its UUID from stage to stage.
local function names_at(stage, uuids)
  local names = {}
  for i, uuid in ipairs(uuids) do
    names[i] = uuid .. '/' .. stage
  end
  return names
end

local function names_at_all(stages, uuids)
  local names = {}
  for _, stage in ipairs(redis.call('ZRANGE', stages, 0, -1)) do
    for _, name in ipairs(names_at(stage, uuids)) do
      names[#names + 1] = name
    end
  end
  return names
end

-- The first line of a record: token, milliseconds, kind, data hash, message id, error type; see records.py.
local function parse_record(value)
  local token, at, kind, data_hash, message_id, error_type =
    string.match(value or '', '^(%d+) (%d+) (%u+) (%S+) (%S+) (%S+)\n')
  if token and #token <= 16 then
    return {token = tonumber(token), kind = kind, data_hash = data_hash, message_id = message_id,
            error_type = error_type}
  end
end
