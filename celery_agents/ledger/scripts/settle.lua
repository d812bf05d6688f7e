-- Record outcomes, release their claims, and end the delivery if it is at its end.
-- Outcomes of one agent task each come in one text: of each a line with UUID, kind, and two lengths, then what follows
-- token and time in its record, and the same for its failure. Groups come as kind, packed agent tasks, and what follows
-- these in its record, see records.lua.
-- Reply: of those about which somebody else decides, so that nothing was written, the UUID and the message that does.
-- include lists, messages
-- The field of `outcomes` with how many agent tasks are in groups, less one for each group: what a count of the records
-- leaves out.
local GROUPED = 'grouped'
-- What one call clears away at most beyond what it writes, so that none takes long.
local PURGED_AT_ONCE = 500

local _, now = clock()
local my_token, newest = tonumber(token), redis.call('HGET', message, 'token')
local is_mine = is_newest(newest, message_id, token)
local present, head = whole(now), token .. ' ' .. whole(now) .. ' '
local number_recorded, left_out = 0, {}
local grouped  -- What GROUPED says, where it was changed.

local function write_group(holder, kind, tasks, others)
  local name, number = holder .. ' ' .. stage, #tasks / 32
  local record = head .. kind .. ' ' .. message_id .. ' ' .. number .. '\n' .. tasks .. others
  redis.call('HSET', outcomes, name, record)
  redis.call('ZADD', outcome_times, present, name)
  grouped = redis.call('HINCRBY', outcomes, GROUPED, number - 1)
  number_recorded = number_recorded + number
end

-- A success clears an older failure and the crashes of its agent task. Often there is nothing to forget.
local function forget_trouble(packed)
  if redis.call('EXISTS', failures, crashes) > 0 then
    local names = names_at(stage, split(packed))
    -- How many there were is not told of more than one command takes.
    if in_chunks('HDEL', failures, names) ~= 0 then
      in_chunks('ZREM', failure_times, names)
    end
    if redis.call('EXISTS', crashes) == 1 then
      in_chunks('ZREM', crashes, names)
    end
  end
end

-- How many agent tasks are known of beyond as many as shall be.
local function excess_of_outcomes()
  grouped = grouped or tonumber(redis.call('HGET', outcomes, GROUPED) or 0) or 0
  return redis.call('ZCARD', outcome_times) + grouped - most_outcomes
end

local function too_old(times, kept, most)
  return redis.call('ZRANGEBYSCORE', times, '-inf', whole(now - kept), 'LIMIT', 0, most)
end

local function note_stage()
  local longest = math.max(outcomes_kept, failures_kept)
  if redis.call('ZADD', stages, present, stage) == 1 then
    redis.call('ZREMRANGEBYSCORE', stages, '-inf', whole(now - longest))
    redis.call('ZREMRANGEBYRANK', stages, 0, -101)
  end
  expire_no_sooner(stages, longest)
end

local function finish()
  if newest == token then
    if is_last then
      redis.call('DEL', message)
    else
      redis.call('HDEL', message, 'running')
    end
  end
  if number_recorded > 0 then
    note_stage()
  end
  -- What leads to records lasts as long as they, and they as long as what leads to them.
  for _, key in ipairs({holders, outcomes, outcome_times}) do
    expire_no_sooner(key, outcomes_kept)
  end
end

-- Usually all that a message has goes the same way, and is settled at once.
local is_usual = newest == token and singles == '' and #ARGV == rest + 2 and has_just(message_id, ARGV[rest + 1])
if is_usual then
  forget_message(message_id, #ARGV[rest + 1] / 32)
  write_group(message_id, unpack(ARGV, rest))
  forget_trouble(ARGV[rest + 1])
  if excess_of_outcomes() <= 0 and #too_old(outcome_times, outcomes_kept, 1) == 0 then
    finish()
    return left_out
  end
end

-- include records, claims
local function add_pair(list, first, second)
  list[#list + 1] = first
  list[#list + 1] = second
end

-- Of a list of agent tasks: which of them this message has claimed; which message decides about each instead, be it this
-- one by a newer delivery; and a function that reads what was recorded before. Without a claim (it was released, or
-- everything was flushed) the newest token is right.
local function look_at(uuids)
  local before, has_some, records = in_chunks('HMGET', holders, uuids), has_claims(message_id), nil
  local is_claimed, others = {}, {}
  local function earlier(i)
    records = records or records_of(uuids, before, stage)
    return parse_record(records[i])
  end
  for i, uuid in ipairs(uuids) do
    is_claimed[i] = has_some and before[i] == message_id
    if is_claimed[i] then
      others[i] = not is_mine and message_id
    elseif before[i] and has_claims(before[i]) then
      others[i] = before[i]
    else
      local newest = earlier(i)
      others[i] = newest and newest.token > my_token and newest.message_id
    end
    if others[i] then
      add_pair(left_out, uuid, others[i])
    end
  end
  return is_claimed, others, earlier
end

-- ---------------------------------------------------------------------------------------------------- one by one

local function read_singles()
  local uuids, kinds, tails, failed, at = {}, {}, {}, {}, 1
  while at <= #singles do
    local uuid, kind, record_length, failure_length, start =
      string.match(singles, '^(%x+) (%u+) (%d+) (%d+)\n()', at)
    local i, middle = #uuids + 1, start + tonumber(record_length)
    at = middle + tonumber(failure_length)
    uuids[i], kinds[i] = uuid, kind
    tails[i], failed[i] = string.sub(singles, start, middle - 1), string.sub(singles, middle, at - 1)
  end
  return uuids, kinds, tails, failed
end

local function settle_singles()
  local uuids, kinds, tails, failed = read_singles()
  local is_claimed, others, earlier = look_at(uuids)
  -- Gathered, so that each key is written once and not once for each outcome.
  local records_new, times_new, failures_new, failure_times_new, free, untroubled = {}, {}, {}, {}, {}, {}
  local number_claimed = 0
  for i, uuid in ipairs(uuids) do
    if not others[i] then
      local name, known = uuid .. '/' .. stage, kinds[i] == 'GONE' and earlier(i)
      -- Who comes second finds the agent task gone. What is worth knowing is how it went.
      local is_known_better = known and known.kind == 'PROCEEDED'
      if not is_known_better then
        add_pair(records_new, name, head .. tails[i])
        add_pair(times_new, present, name)
      end
      if is_claimed[i] or not is_known_better then
        free[#free + 1] = uuid
      end
      if kinds[i] ~= 'FAILED' then
        untroubled[#untroubled + 1] = uuid
      elseif failed[i] ~= '' then
        add_pair(failures_new, name, head .. failed[i])
        add_pair(failure_times_new, present, name)
      end
      number_claimed = number_claimed + (is_claimed[i] and 1 or 0)
      number_recorded = number_recorded + 1
    end
  end
  in_chunks('HSET', outcomes, records_new)
  in_chunks('ZADD', outcome_times, times_new)
  in_chunks('HSET', failures, failures_new)
  in_chunks('ZADD', failure_times, failure_times_new)
  in_chunks('HDEL', holders, free)
  count_less(message_id, number_claimed)
  forget_trouble(table.concat(untroubled))
end

-- ------------------------------------------------------------------------------------------------------- groups

-- What is left of a group without those about which others decide: its agent tasks, and what follows them.
local function cut(uuids, following, excluded)
  local tasks, data, old_lines = {}, {}, lines(string.sub(following, 32 * #uuids + 1))
  local new_lines = {old_lines[1]}
  for i = 1, #uuids do
    if not excluded[i] then
      tasks[#tasks + 1] = uuids[i]
      data[#data + 1] = string.sub(following, 32 * i - 31, 32 * i)
      new_lines[#new_lines + 1] = old_lines[i + 1]
    end
  end
  return tasks, table.concat(data) .. table.concat(new_lines, '\n') .. '\n'
end

-- Let entries lead to a group, and claims end; return whom they lead to.
local function lead_to_group(uuids, number_claimed)
  if number_claimed == #uuids and redis.call('HGET', sizes, message_id) == whole(number_claimed) then
    forget_message(message_id, number_claimed)
    return message_id
  end
  local holder = new_holder()
  lead(uuids, holder)
  count_less(message_id, number_claimed)
  return holder
end

local function settle_group(kind, packed, following)
  local uuids = split(packed)
  local is_claimed, others = look_at(uuids)
  local number_claimed = 0
  for i = 1, #uuids do
    number_claimed = number_claimed + (is_claimed[i] and not others[i] and 1 or 0)
  end
  local tasks, rest_of_record = cut(uuids, following, others)
  if #tasks > 0 then
    local packed_tasks = table.concat(tasks)
    write_group(lead_to_group(tasks, number_claimed), kind, packed_tasks, rest_of_record)
    forget_trouble(packed_tasks)
  end
end

-- ----------------------------------------------------------------------------------------------------- trimming

local function is_group(name)
  return string.find(name, ' ', 1, true) ~= nil
end

-- Clear away what leads to a group that is forgotten; return how many agent tasks it had.
local function forget_group(name)
  local holder, its_stage = string.match(name, '^(.*) (%x+)$')
  local group = holder and parse_group(redis.call('HGET', outcomes, name))
  if not group then
    return 1
  end
  -- In the slot of this one, as all keys of a project.
  local key = holders_prefix .. its_stage
  in_chunks('HDEL', key, led_by(holder, tasks_of(group), key))
  redis.call('HINCRBY', outcomes, GROUPED, 1 - group.number)
  return group.number
end

local function forget(store, times, names)
  in_chunks('ZREM', times, names)
  in_chunks('HDEL', store, names)
end

local function trim_outcomes()
  local budget = number_recorded + PURGED_AT_ONCE
  local excess, forgotten, number = excess_of_outcomes(), {}, 0
  local function forget_oldest(names, most)
    for _, name in ipairs(names) do
      if number >= most then
        return
      end
      forgotten[#forgotten + 1] = name
      number = number + (is_group(name) and forget_group(name) or 1)
    end
  end
  forget_oldest(too_old(outcome_times, outcomes_kept, budget), budget)
  local most = math.min(excess, budget)
  while number < most do
    -- A few at a time: the oldest is often a group that makes room enough.
    local names = redis.call('ZRANGE', outcome_times, #forgotten, #forgotten + 9)
    if #names == 0 then
      -- Less is there than was counted, as where Redis was short of memory: it is counted anew.
      redis.call('HDEL', outcomes, GROUPED)
      break
    end
    forget_oldest(names, most)
  end
  forget(outcomes, outcome_times, forgotten)
end

local function trim_failures()
  local budget = number_recorded + PURGED_AT_ONCE
  local excess = math.min(redis.call('ZCARD', failure_times) - most_failures, budget)
  local old = too_old(failure_times, failures_kept, budget)
  forget(failures, failure_times, excess > #old and redis.call('ZRANGE', failure_times, 0, excess - 1) or old)
end

-- ------------------------------------------------------------------------------------------------------ the end

if singles ~= '' then
  settle_singles()
end
for at = is_usual and #ARGV + 1 or rest, #ARGV, 3 do
  settle_group(unpack(ARGV, at, at + 2))
end
trim_outcomes()
trim_failures()
for _, key in ipairs({failures, failure_times}) do
  expire_no_sooner(key, failures_kept)
end
finish()
return left_out
