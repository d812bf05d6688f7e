-- Record outcomes, release their claims, and end the delivery if it is at its end. Outcomes come in one text: of each a
-- line with UUID, kind, and two lengths, then what follows token and time in its record, and the same for its failure.
-- Reply: the UUIDs for which a newer delivery decides; of them nothing was written.
local _, now = clock()
local mine, my_token = token .. ' ' .. message_id, tonumber(token)
local task_uuids, kinds, tails, failures_of = {}, {}, {}, {}
local at = 1
while at <= #settled do
  local uuid, kind, record_length, failure_length, start = string.match(settled, '^(%x+) (%u+) (%d+) (%d+)\n()', at)
  local i, middle = #task_uuids + 1, start + tonumber(record_length)
  at = middle + tonumber(failure_length)
  task_uuids[i], kinds[i] = uuid, kind
  tails[i], failures_of[i] = string.sub(settled, start, middle - 1), string.sub(settled, middle, at - 1)
end
local names = names_at(stage, task_uuids)
local values = in_chunks('HMGET', holders, task_uuids)
local records = in_chunks('HMGET', outcomes, names)
local superseded, released = {}, {}

-- Without a claim (it was released, or everything was flushed) the newest token is right.
local function decides(i)
  if values[i] == mine then
    return true
  end
  local newest = parse_record(records[i])
  return not parse_holder(values[i]) and (not newest or newest.token <= my_token)
end

-- What is to be written, gathered so that each key is written once and not once for each outcome.
local records_new, times_new, index_new, failures_new, failure_times_new, forgotten = {}, {}, {}, {}, {}, {}

local function add_pair(list, first, second)
  list[#list + 1] = first
  list[#list + 1] = second
end

local function record(i, kind, tail, failure)
  local name, earlier = names[i], parse_record(records[i])
  local head = token .. ' ' .. whole(now) .. ' '
  -- Who comes second finds the agent task gone. What is worth knowing is how it went.
  if not (kind == 'GONE' and earlier and earlier.kind == 'PROCEEDED') then
    add_pair(records_new, name, head .. tail)
    add_pair(times_new, whole(now), name)
    local data_hash = string.match(tail, '^%u+ (%x+) ')
    if data_hash then
      add_pair(index_new, 0, data_hash .. '/' .. name)
    end
  end
  if kind ~= 'FAILED' then
    forgotten[#forgotten + 1] = name
  elseif failure ~= '' then
    add_pair(failures_new, name, head .. failure)
    add_pair(failure_times_new, whole(now), name)
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
  if decides(i) then
    record(i, kinds[i], tails[i], failures_of[i])
    if values[i] == mine then
      released[#released + 1] = uuid
    end
  else
    superseded[#superseded + 1] = uuid
  end
end
in_chunks('HSET', outcomes, records_new)
in_chunks('ZADD', outcome_times, times_new)
in_chunks('ZADD', by_data, index_new)
in_chunks('HSET', failures, failures_new)
in_chunks('ZADD', failure_times, failure_times_new)
in_chunks('HDEL', failures, forgotten)
in_chunks('ZREM', failure_times, forgotten)
in_chunks('ZREM', crashes, forgotten)
drop_claims(deadlines, holders, released)
if redis.call('HGET', message, 'token') == token then
  redis.call('HDEL', message, 'running')
  if is_last then
    redis.call('DEL', message)
  end
end

trim(outcome_times, outcomes, outcomes_kept, most_outcomes, by_data)
trim(failure_times, failures, failures_kept, most_failures)
if #task_uuids > #superseded then
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
return superseded
