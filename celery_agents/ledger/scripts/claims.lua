-- What the scripts about claims share. It stands after the names of their keys, see __init__.py.
--
-- A claim is one entry: in `holders`, agent task -> message that is in `sizes`; for other entries see records.lua. What is
-- true of all claims of a message is kept once for the message, so that taking over, confirming and renewing cost the
-- same for one agent task and for a thousand: in `queued` or, once a worker has taken it over, in `running`, until when
-- they last; in `sizes` how many there are, of each message and of all, see messages.lua; in `batches` which they were
-- at most, in the order in which they came.

-- Messages whose claims one call clears away at most.
local MESSAGES_PURGED_AT_ONCE = 5

local is_live = {}

-- Whom an agent task is kept for: nobody, where the claim has lapsed, or its message waits in a queue and is cancelled.
local function live_holder(id, now)
  if id and is_live[id] == nil then
    local deadline, is_queued = standing(id)
    is_live[id] = deadline > now and not (is_queued and is_cancelled(cancelled, id, now))
  end
  return id and is_live[id] and id
end

local function has_claims(id)
  return size_of(id) ~= false
end

local function count_less(id, number)
  local left = number > 0 and redis.call('HINCRBY', sizes, id, -number)
  if left and left <= 0 then
    forget_message(id, left + number)
  elseif left then
    count(id, -number)
  end
end

local serial = 0

-- What entries in `holders` say instead of a message.
local function new_holder()
  local microseconds = clock()
  serial = serial + 1
  return ' ' .. whole(microseconds) .. '.' .. serial
end

local function lead(uuids, holder)
  local entries = {}
  for i = 1, #uuids do
    entries[2 * i - 1], entries[2 * i] = uuids[i], holder
  end
  in_chunks('HSET', holders, entries)
end

-- Before a message gets claims: what it settled before is found under another name from now on.
local function begin_claims(id)
  local group = group_of(id, stage)
  if group then
    local holder, old_name = new_holder(), id .. ' ' .. stage
    local name = holder .. ' ' .. stage
    lead(led_by(id, tasks_of(group), holders), holder)
    redis.call('HSET', outcomes, name, group.text)
    redis.call('HDEL', outcomes, old_name)
    redis.call('ZADD', outcome_times, whole(group.at), name)
    redis.call('ZREM', outcome_times, old_name)
    groups_read[old_name] = false
  end
end

-- Before an entry is overwritten: its message has one less, or the outcome gets a record that is found without.
local function leave(holder, uuid)
  if has_claims(holder) then
    return count_less(holder, 1)
  end
  local record, group = record_in_group(uuid, holder, stage)
  if record then
    redis.call('HSET', outcomes, uuid .. '/' .. stage, record)
    redis.call('ZADD', outcome_times, whole(group.at), uuid .. '/' .. stage)
  end
end

-- Those of agent tasks that a message does not have yet, taken from where they are; `before` are their entries. Entries
-- that name it although it has no claims lead to nothing: the records were lost, as where Redis was short of memory.
local function taken_for(id, uuids, before)
  if not has_any(before) then
    return uuids
  end
  local new, has_some = {}, has_claims(id)
  for i, uuid in ipairs(uuids) do
    if before[i] ~= id or not has_some then
      new[#new + 1] = uuid
      if before[i] and before[i] ~= id then
        leave(before[i], uuid)
      end
    end
  end
  return new
end

-- Let a message have agent tasks; `before` are their entries until now, false for none, and `packed` their list where
-- nobody had any of them. Return whether it had none.
local function give(id, uuids, before, packed)
  local new, number = taken_for(id, uuids, before), nil
  if #new > 0 then
    lead(new, id)
    number = redis.call('HINCRBY', sizes, id, #new)
    count(id, #new)
    local earlier = number > #new and redis.call('HGET', batches, id) or ''
    redis.call('HSET', batches, id, earlier .. (packed or table.concat(new)))
  end
  is_live[id] = nil
  return number == #new
end

-- Take agent tasks away from the messages that hold them.
local function drop(uuids, ids)
  local counts = {}
  for _, id in ipairs(ids) do
    counts[id] = (counts[id] or 0) + 1
  end
  in_chunks('HDEL', holders, uuids)
  for id, number in pairs(counts) do
    count_less(id, number)
  end
end

-- Those of a message's agent tasks that it still holds.
local function held_by(id)
  return led_by(id, split(redis.call('HGET', batches, id) or ''), holders)
end

local function purge_claims(now)
  for _, deadlines in ipairs({queued, running}) do
    local old = {'-inf', whole(now - LAPSED_KEPT), 'LIMIT', 0, MESSAGES_PURGED_AT_ONCE}
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', deadlines, unpack(old))) do
      in_chunks('HDEL', holders, held_by(id))
      forget_message(id, size_of(id) or 0)
    end
  end
end
