-- Find outcomes by data hashes: a page of all records, from a cursor on.
-- Reply: the cursor of the next page, '0' after the last; name and record, alternating.
-- include lists, records
local _, now = clock()
local wanted, reply, page = split(data_hashes), {}, redis.call('HSCAN', outcomes, cursor, 'COUNT', size)
local is_wanted = {}
for _, data_hash in ipairs(wanted) do
  is_wanted[data_hash] = true
end

local function is_kept(name)
  return tonumber(redis.call('ZSCORE', outcome_times, name) or 0) > now - kept
end

local function add(name, text)
  reply[#reply + 1] = name
  reply[#reply + 1] = presentable(text, longest)
end

-- In the slot of the others, as all keys of a project.
local function holder_of(uuid, stage)
  return redis.call('HGET', holders_prefix .. stage, uuid)
end

local function search_group(name, text)
  local holder, stage = string.match(name, '^(.*) (%x+)$')
  local group = holder and is_kept(name) and parse_group(text)
  for _, data_hash in ipairs(group and wanted or {}) do
    local place = place_in(text, group.data, group.rest, data_hash)
    while place do
      local uuid = task_at(group, place)
      -- Else something newer is known of the agent task.
      if holder_of(uuid, stage) == holder then
        add(uuid .. '/' .. stage, record_at(group, place))
      end
      local following = place_in(text, group.data + 32 * place, group.rest, data_hash)
      place = following and place + following
    end
  end
end

local function search_single(name, text)
  local record, uuid, stage = parse_record(text), string.match(name, '^(%x+)/(%x+)$')
  if record and is_wanted[record.data_hash] and uuid and is_kept(name)
    and not record_in_group(uuid, holder_of(uuid, stage), stage) then
    add(name, text)
  end
end

for i = 1, #page[2], 2 do
  local name, text = page[2][i], page[2][i + 1]
  local search = string.find(name, ' ', 1, true) and search_group or search_single
  search(name, text)
end
return {page[1], reply}
