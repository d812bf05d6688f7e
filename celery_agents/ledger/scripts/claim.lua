-- Claim the agent tasks of several batches, before they are sent. Batches come as pairs: message id, packed UUIDs.
-- Reply: for those refused, the message that wanted it, UUID, and the message that holds it.
-- include lists, messages, records, claims
local _, now = clock()
local refused = {}
purge_claims(now)

-- Which of its agent tasks a message is granted, and who had those.
local function granted_to(id, uuids, before)
  if not has_any(before) then
    return uuids, before
  end
  local granted, holders_before = {}, {}
  for i, uuid in ipairs(uuids) do
    if before[i] == id or is_forced or not live_holder(before[i], now) then
      granted[#granted + 1], holders_before[#holders_before + 1] = uuid, before[i]
    else
      refused[#refused + 1], refused[#refused + 2], refused[#refused + 3] = id, uuid, before[i]
    end
  end
  return granted, holders_before
end

local function claim(id, uuids, packed)
  begin_claims(id)
  local granted, holders_before = granted_to(id, uuids, in_chunks('HMGET', holders, uuids))
  if #granted > 0 then
    -- Sent again while it runs already: the delivery that runs goes on.
    local is_queued = give(id, granted, holders_before, granted == uuids and packed) or select(2, standing(id))
    keep(is_queued and queued or running, id, now, ttl, 'GT')
  end
end

-- Of which messages something is kept already: claims, or what they settled.
local function known_messages()
  local ids, names, known = {}, {}, {}
  for at = rest, #ARGV, 2 do
    ids[#ids + 1], names[#names + 1] = ARGV[at], ARGV[at] .. ' ' .. stage
  end
  local has_group, has_size = in_chunks('HMGET', outcomes, names), in_chunks('HMGET', sizes, ids)
  for i, id in ipairs(ids) do
    known[id] = has_group[i] or has_size[i]
  end
  return known
end

-- Usually a message is new, and nobody has its agent tasks. What is to be kept of such messages is written at once.
local new = {number = 0, sizes = {}, lists = {}, deadlines = {}}

local function add_pair(list, first, second)
  list[#list + 1] = first
  list[#list + 1] = second
end

local function claim_for_new(id, uuids, packed)
  lead(uuids, id)
  new.number = new.number + #uuids
  add_pair(new.sizes, id, #uuids)
  add_pair(new.lists, id, packed)
  add_pair(new.deadlines, whole(now + ttl), id)
end

local function write_new()
  if new.number > 0 then
    in_chunks('HSET', sizes, new.sizes)
    redis.call('HINCRBY', sizes, TOTAL, new.number)
    in_chunks('HSET', batches, new.lists)
    in_chunks('ZADD', queued, new.deadlines)
    new = {number = 0, sizes = {}, lists = {}, deadlines = {}}
  end
end

local known = known_messages()
for at = rest, #ARGV, 2 do
  local id, packed = ARGV[at], ARGV[at + 1]
  local uuids = split(packed)
  if known[id] or #uuids == 0 or has_any(in_chunks('HMGET', holders, uuids)) then
    write_new()
    claim(id, uuids, packed)
  else
    claim_for_new(id, uuids, packed)
  end
end
write_new()
expire_claims(ttl)
return refused
