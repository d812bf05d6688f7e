-- Begin a delivery: a new token, the claims of its agent tasks, and what earlier deliveries left behind.
-- Reply: token, deliveries, suspect or '', how the delivery before died or '', is cancelled, milliseconds of pause,
-- {refused UUID, message id, ...}, {UUID, crashes, ...}, {UUID settled by this message before, record, ...}
local microseconds, now = clock()
purge_claims(now)
local before = in_chunks('HMGET', holders, task_uuids)
-- What this message still holds has not ended. Usually that is all of it.
local unheld, records = {}, {}
for i, uuid in ipairs(task_uuids) do
  if before[i] ~= message_id then
    unheld[#unheld + 1] = uuid
  end
end
for i, record in ipairs(in_chunks('HMGET', outcomes, names_at(stage, unheld))) do
  records[unheld[i]] = record
end
-- Larger than every token before it, also when the clock was set back or another server took over.
local token = math.max(microseconds, (tonumber(redis.call('HGET', message, 'token') or 0) or 0) + 1)
local granted, holders_before, refused, settled = {}, {}, {}, {}
for i, uuid in ipairs(task_uuids) do
  local record = parse_record(records[uuid])
  if record then
    token = math.max(token, record.token + 1)
  end
  if record and record.message_id == message_id then
    settled[#settled + 1], settled[#settled + 2] = uuid, presentable(records[uuid], longest)
  elseif before[i] ~= message_id and live_holder(before[i], now) then
    refused[#refused + 1], refused[#refused + 2] = uuid, before[i]
  else
    granted[#granted + 1], holders_before[#holders_before + 1] = uuid, before[i]
  end
end
give(message_id, granted, holders_before)
if redis.call('HEXISTS', sizes, message_id) == 1 then
  redis.call('ZREM', queued, message_id)
  keep(running, message_id, now, ttl)
end

-- The delivery before this one never ended. If it noted what it was on, that one is the suspect.
local suspect, death = redis.call('HGET', message, 'running') or '', redis.call('HGET', message, 'death') or ''
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
redis.call('HDEL', message, 'running', 'death')
local counts = {}
if redis.call('EXISTS', crashes) == 1 then
  for i, score in ipairs(in_chunks('ZMSCORE', crashes, names_at(stage, task_uuids))) do
    if score and math.floor(tonumber(score) / 1000) > now then
      counts[#counts + 1] = task_uuids[i]
      counts[#counts + 1] = tonumber(score) % 1000
    end
  end
end

redis.call('HSET', message, 'token', whole(token))
local deliveries = redis.call('HINCRBY', message, 'deliveries', 1)
expire_no_sooner(message, ttl + MESSAGE_KEPT)
return {whole(token), deliveries, suspect, presentable(death, longest), is_cancelled(cancelled, message_id, now) and 1 or 0,
        milliseconds_left(pause), refused, counts, settled}
