-- Record outcomes, release their claims, and end the delivery if it is at its end. Outcomes come in one text: of each a
-- line with UUID, kind, data hash, and two lengths, then what follows token and time in its record, and the same for its
-- failure.
-- Reply: of those about which somebody else decides, so that nothing was written, the UUID and the message that does.
local _, now = clock()
local my_token = tonumber(token)
local task_uuids, kinds, data_hashes, tails, failures_of = {}, {}, {}, {}, {}
local at = 1
while at <= #settled do
  local uuid, kind, data_hash, record_length, failure_length, start =
    string.match(settled, '^(%x+) (%u+) (%S+) (%d+) (%d+)\n()', at)
  local i, middle = #task_uuids + 1, start + tonumber(record_length)
  at = middle + tonumber(failure_length)
  task_uuids[i], kinds[i], data_hashes[i] = uuid, kind, data_hash
  tails[i], failures_of[i] = string.sub(settled, start, middle - 1), string.sub(settled, middle, at - 1)
end
local names = names_at(stage, task_uuids)
local before = in_chunks('HMGET', holders, task_uuids)
local is_mine = is_newest(message, message_id, token)
local left_out, released, mine = {}, {}, {}

local function earlier_record(i)
  return parse_record(redis.call('HGET', outcomes, names[i]))
end

-- Which message decides about it instead, or a newer delivery of this one; nil where it is this delivery. Without a
-- claim (it was released, or everything was flushed) the newest token is right.
local function decided_by(i)
  if before[i] and (before[i] == message_id or redis.call('HEXISTS', sizes, before[i]) == 1) then
    return not (is_mine and before[i] == message_id) and before[i] or nil
  end
  local newest = earlier_record(i)
  return newest and newest.token > my_token and newest.message_id or nil
end

-- What is to be written, gathered so that each key is written once and not once for each outcome.
local records_new, times_new, index_new, failures_new, failure_times_new, forgotten = {}, {}, {}, {}, {}, {}

local function add_pair(list, first, second)
  list[#list + 1] = first
  list[#list + 1] = second
end

local head, present = token .. ' ' .. whole(now) .. ' ', whole(now)

-- Who comes second finds the agent task gone. What is worth knowing is how it went.
local function is_known_better(i, kind)
  local earlier = kind == 'GONE' and earlier_record(i)
  return earlier and earlier.kind == 'PROCEEDED'
end

local function record(i, kind, tail, failure)
  local name = names[i]
  if not is_known_better(i, kind) then
    add_pair(records_new, name, head .. tail)
    add_pair(times_new, present, name)
    if data_hashes[i] ~= '-' then
      add_pair(index_new, 0, data_hashes[i] .. '/' .. name)
    end
  end
  if kind ~= 'FAILED' then
    forgotten[#forgotten + 1] = name
  elseif failure ~= '' then
    add_pair(failures_new, name, head .. failure)
    add_pair(failure_times_new, present, name)
  end
end

-- The oldest names beyond an age or a number, not too many at once.
local function superfluous(times, kept, most)
  local budget = #task_uuids + PURGED_AT_ONCE
  local old = redis.call('ZRANGEBYSCORE', times, '-inf', whole(now - kept), 'LIMIT', 0, budget)
  local excess = math.min(redis.call('ZCARD', times) - most, budget)
  return excess > #old and redis.call('ZRANGE', times, 0, excess - 1) or old
end

local function trim(times, store, kept, most, index)
  local names_of_old = superfluous(times, kept, most)
  if index then
    local entries = {}
    for i, value in ipairs(in_chunks('HMGET', store, names_of_old)) do
      local old = parse_record(value)
      if old then
        entries[#entries + 1] = old.data_hash .. '/' .. names_of_old[i]
      end
    end
    in_chunks('ZREM', index, entries)
  end
  in_chunks('ZREM', times, names_of_old)
  in_chunks('HDEL', store, names_of_old)
end

for i, uuid in ipairs(task_uuids) do
  local other = decided_by(i)
  if not other then
    record(i, kinds[i], tails[i], failures_of[i])
    if before[i] == message_id then
      released[#released + 1], mine[#mine + 1] = uuid, message_id
    end
  else
    left_out[#left_out + 1], left_out[#left_out + 2] = uuid, other
  end
end
in_chunks('HSET', outcomes, records_new)
in_chunks('ZADD', outcome_times, times_new)
in_chunks('ZADD', by_data, index_new)
in_chunks('HSET', failures, failures_new)
in_chunks('ZADD', failure_times, failure_times_new)
-- Nearly always there is nothing to forget.
for _, key in ipairs({failure_times, crashes}) do
  if redis.call('EXISTS', key) == 1 then
    in_chunks('ZREM', key, forgotten)
  end
end
if redis.call('EXISTS', failures) == 1 then
  in_chunks('HDEL', failures, forgotten)
end
drop(released, mine)
if redis.call('HGET', message, 'token') == token then
  redis.call('HDEL', message, 'running')
  if is_last then
    redis.call('DEL', message)
  end
end

trim(outcome_times, outcomes, outcomes_kept, most_outcomes, by_data)
trim(failure_times, failures, failures_kept, most_failures)
if 2 * #task_uuids > #left_out then
  local longest = math.max(outcomes_kept, failures_kept)
  redis.call('ZADD', stages, whole(now), stage)
  redis.call('ZREMRANGEBYSCORE', stages, '-inf', whole(now - longest))
  redis.call('ZREMRANGEBYRANK', stages, 0, -101)
  expire_no_sooner(stages, longest)
end
for _, key in ipairs({outcomes, outcome_times, by_data}) do
  expire_no_sooner(key, outcomes_kept)
end
for _, key in ipairs({failures, failure_times}) do
  expire_no_sooner(key, failures_kept)
end
return left_out
