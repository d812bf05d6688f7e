-- Begin a delivery: a new token, the claims of its agent tasks, and what earlier deliveries left behind.
-- Reply: the token alone where there is nothing else to tell, or token, deliveries, suspect or '', how the delivery before died or '', is cancelled, milliseconds of pause,
-- {refused UUID, message id, ...}, {UUID, crashes, ...}, {UUID settled by this message before, record, ...}
-- include messages
local microseconds, now = clock()

local function begin(token, deliveries)
  redis.call('HSET', message, 'token', whole(token), 'deliveries', deliveries)
end

-- Nobody knows anything of the message but its claims, and nothing stands in its way.
local function is_unmarked()
  return redis.call('EXISTS', message, crashes, pause, cancelled) == 0
    or redis.call('EXISTS', message, crashes, pause) == 0 and not is_cancelled(cancelled, message_id, now)
end

-- Usually a message is delivered for the first time, and is given what was claimed for it: all of it, in that order.
if has_just(message_id, task_uuids) and is_unmarked() then
  keep(running, message_id, now, ttl)
  redis.call('ZREM', queued, message_id)
  -- What a claim wrote lasts for a day at least. For longer, all of it was seen to when `running` was last.
  if ttl > LAPSED_KEPT or redis.call('PTTL', running) < ttl + LAPSED_KEPT then
    expire_claims(ttl)
  end
  begin(microseconds, 1)
  redis.call('PEXPIRE', message, whole(ttl + MESSAGE_KEPT + EXPIRY_SPARED))  -- It is new.
  return whole(microseconds)
end

-- include lists, records, claims
purge_claims(now)
begin_claims(message_id)
-- Larger than every token before it, also when the clock was set back or another server took over.
local earlier = redis.call('HMGET', message, 'token', 'deliveries', 'running', 'death')
local token = math.max(microseconds, (tonumber(earlier[1] or 0) or 0) + 1)
local refused, settled = {}, {}

local function take(uuids)
  local before = in_chunks('HMGET', holders, uuids)
  local records, granted, holders_before = records_of(uuids, before, stage), {}, {}
  for i, uuid in ipairs(uuids) do
    -- What this message still holds has not ended.
    local record = before[i] ~= message_id and parse_record(records[i])
    if record then
      token = math.max(token, record.token + 1)
    end
    if record and record.message_id == message_id then
      settled[#settled + 1], settled[#settled + 2] = uuid, presentable(records[i], longest)
    elseif before[i] ~= message_id and live_holder(before[i], now) then
      refused[#refused + 1], refused[#refused + 2] = uuid, before[i]
    else
      granted[#granted + 1], holders_before[#holders_before + 1] = uuid, before[i]
    end
  end
  give(message_id, granted, holders_before)
end

if not has_just(message_id, task_uuids) then
  take(unique(split(task_uuids)))
end
if has_claims(message_id) then
  keep(running, message_id, now, ttl)
  redis.call('ZREM', queued, message_id)
  expire_claims(ttl)
end

-- The delivery before this one never ended. If it noted what it was on, that one is the suspect.
local suspect, death = earlier[3] or '', earlier[4] or ''
if suspect ~= '' then
  -- One sorted set holds count and expiry: the score is milliseconds, and three digits for the count.
  local name = suspect .. '/' .. stage
  local score = tonumber(redis.call('ZSCORE', crashes, name) or 0)
  local count = math.floor(score / 1000) > now and score % 1000 or 0
  redis.call('ZADD', crashes, whole((now + crashes_kept) * 1000 + math.min(count + 1, 999)), name)
  redis.call('ZREMRANGEBYSCORE', crashes, '-inf', whole(now * 1000))
  redis.call('ZREMRANGEBYRANK', crashes, 0, -10001)
  expire_no_sooner(crashes, crashes_kept)
end
if earlier[3] or earlier[4] then
  redis.call('HDEL', message, 'running', 'death')
end
local counts = {}
if redis.call('EXISTS', crashes) == 1 then
  local task_uuids = split(task_uuids)
  for i, score in ipairs(in_chunks('ZMSCORE', crashes, names_at(stage, task_uuids))) do
    if score and math.floor(tonumber(score) / 1000) > now then
      counts[#counts + 1] = task_uuids[i]
      counts[#counts + 1] = tonumber(score) % 1000
    end
  end
end

local deliveries = (tonumber(earlier[2] or 0) or 0) + 1
begin(token, deliveries)
expire_no_sooner(message, ttl + MESSAGE_KEPT)
return {whole(token), deliveries, suspect, presentable(death, longest), is_cancelled(cancelled, message_id, now) and 1 or 0,
        milliseconds_left(pause), refused, counts, settled}
