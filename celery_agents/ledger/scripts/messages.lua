-- What is kept once for all claims of a message, see claims.lua.

-- A claim that has lapsed stays for a day, so that its message may still renew it as long as nobody took it.
local LAPSED_KEPT = 24 * 3600 * 1000

-- Two names in `sizes` that no message has, for theirs have no spaces: how many claims there are, and of how many it is
-- known that they lapsed, as "<until> <number>": those of messages that were to last until then at most. Usually none.
local TOTAL, LAPSED = ' total', ' lapsed'

-- Until when a message's claims last, and whether it waits in its queue.
local function standing(id)
  local deadline = redis.call('ZSCORE', running, id)
  if deadline then
    return tonumber(deadline), false
  end
  return tonumber(redis.call('ZSCORE', queued, id) or 0), true
end

local lapsed

local function set_lapsed(last, number)
  lapsed = number > 0 and {last = last, number = number}
  if lapsed then
    redis.call('HSET', sizes, LAPSED, whole(last) .. ' ' .. whole(number))
  else
    redis.call('HDEL', sizes, LAPSED)
  end
end

local function read_lapsed(text)
  lapsed = false
  if text then
    local last, number = string.match(text, '^(%d+) (%d+)$')
    lapsed = {last = tonumber(last), number = tonumber(number)}
    -- Where the clock was set back it has to be found out anew.
    if select(2, clock()) < lapsed.last then
      set_lapsed(0, 0)
    end
  end
end

local function is_known_lapsed(id)
  if lapsed == nil then
    read_lapsed(redis.call('HGET', sizes, LAPSED))
  end
  local deadline = lapsed and standing(id) or 0
  return deadline > 0 and deadline <= lapsed.last
end

-- Note that a message has more claims or, with a number below zero, fewer; return how many all have.
local function count(id, number)
  if is_known_lapsed(id) then
    set_lapsed(lapsed.last, lapsed.number + number)
  end
  return redis.call('HINCRBY', sizes, TOTAL, number)
end

-- Forget a message that has still so many claims.
local function forget_message(id, size)
  local left = count(id, -size)
  if redis.call('ZREM', running, id) == 0 then
    redis.call('ZREM', queued, id)
  end
  if left > 0 then
    redis.call('HDEL', sizes, id)
  else
    redis.call('DEL', sizes)
  end
  redis.call('HDEL', batches, id)
end

-- Whether all that a message has, and nothing else, is this packed list.
local function has_just(id, packed)
  if redis.call('HGET', batches, id) ~= packed then
    return false
  end
  -- What is needed next comes with it.
  local known = redis.call('HMGET', sizes, id, LAPSED)
  read_lapsed(known[2])
  return known[1] == whole(#packed / 32)
end

-- Let the claims of a message last, in `queued` or `running`; options are those of ZADD.
local function keep(deadlines, id, now, ttl, ...)
  if is_known_lapsed(id) then
    set_lapsed(lapsed.last, lapsed.number - tonumber(redis.call('HGET', sizes, id) or 0))
  end
  local options = {...}
  options[#options + 1], options[#options + 2] = whole(now + ttl), id
  redis.call('ZADD', deadlines, unpack(options))
end

-- After `keep`. Records last longer than what leads to them, for they are what clears it away.
local function expire_claims(ttl)
  for _, key in ipairs({holders, queued, running, sizes, batches, outcomes, outcome_times}) do
    expire_no_sooner(key, ttl + LAPSED_KEPT)
  end
end

-- Whether this delivery is the newest of its message, whose newest token is known. Token 0 is that of one that could not be begun in the ledger.
local function is_newest(newest, id, token)
  return newest == token or (token == '0' and not newest and redis.call('ZSCORE', queued, id) ~= false)
end
