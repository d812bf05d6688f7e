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

-- What LAPSED says; false where it is not there, nil before it was read.
local lapsed

-- How many claims a message has, false for none. What is needed next comes with it.
local function size_of(id)
  local known = redis.call('HMGET', sizes, id, LAPSED)
  lapsed = known[2]
  return known[1]
end

-- Before claims of a message change in number, or are all renewed, where no number is given: keep LAPSED right.
local function count_lapsed(id, number)
  if lapsed == nil then
    size_of(id)
  end
  if not lapsed then
    return
  end
  local last, left = string.match(lapsed, '^(%d+) (%d+)$')
  if select(2, clock()) < tonumber(last) then
    left = 0  -- The clock was set back, so it has to be found out anew.
  else
    local deadline = standing(id)
    if deadline == 0 or deadline > tonumber(last) then
      return
    end
    left = left + (number or -(size_of(id) or 0))
  end
  if left > 0 then
    lapsed = last .. ' ' .. whole(left)
    redis.call('HSET', sizes, LAPSED, lapsed)
  else
    lapsed = false
    redis.call('HDEL', sizes, LAPSED)
  end
end

-- Note that a message has more claims or, with a number below zero, fewer; return how many all have.
local function count(id, number)
  count_lapsed(id, number)
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
  return redis.call('HGET', batches, id) == packed and size_of(id) == whole(#packed / 32)
end

-- Let the claims of a message last, in `queued` or `running`; options are those of ZADD.
local function keep(deadlines, id, now, ttl, ...)
  count_lapsed(id)
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
