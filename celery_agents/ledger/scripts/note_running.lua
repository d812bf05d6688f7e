-- Note which agent task a careful delivery is on, or '' for none.
-- Reply: is held, is cancelled, milliseconds of pause.
local _, now = clock()
local is_held = redis.call('HGET', message, 'token') == token
if is_held and task_uuid ~= '' then
  is_held = redis.call('HGET', holders, task_uuid) == message_id and redis.call('HEXISTS', sizes, message_id) == 1
end
if is_held then
  if task_uuid == '' then
    redis.call('HDEL', message, 'running')
  else
    redis.call('HSET', message, 'running', task_uuid)
  end
end
return {is_held and 1 or 0, is_cancelled(cancelled, message_id, now) and 1 or 0, milliseconds_left(pause)}
