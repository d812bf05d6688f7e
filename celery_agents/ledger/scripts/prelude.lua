-- What the scripts share. It stands before each of them, see scripts.py.

-- A message may wait over a night without workers and should still be known as one that was begun before.
local MESSAGE_KEPT = 24 * 3600 * 1000
-- What is written again and again gets a minute more, so that its expiry is not set each time.
local EXPIRY_SPARED = 60 * 1000

-- The server's present, in microseconds and in milliseconds.
local function clock()
  local time = redis.call('TIME')
  local microseconds = tonumber(time[1]) * 1000000 + tonumber(time[2])
  return microseconds, math.floor(microseconds / 1000)
end

-- Lua would write a large number as 1.7e+15.
local function whole(number)
  return string.format('%.0f', number)
end

local function expire_no_sooner(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then
    redis.call('PEXPIRE', key, whole(milliseconds + EXPIRY_SPARED))
  end
end

local function milliseconds_left(key)
  return math.max(redis.call('PTTL', key), 0)
end

-- Whether somebody has cancelled a message.
local function is_cancelled(cancelled, message_id, now)
  return tonumber(redis.call('ZSCORE', cancelled, message_id) or 0) > now
end

-- A value that somebody else made very long is not carried over the wire; the empty text says so.
local function presentable(value, longest)
  return #value <= longest and value or ''
end
