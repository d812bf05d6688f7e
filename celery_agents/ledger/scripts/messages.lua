-- What is kept once for all claims of a message, see claims.lua.

-- A claim that has lapsed stays for a day, so that its message may still renew it as long as nobody took it.
local LAPSED_KEPT = 24 * 3600 * 1000

local function forget_message(id)
  if redis.call('ZREM', running, id) == 0 then
    redis.call('ZREM', queued, id)
  end
  redis.call('HDEL', sizes, id)
  redis.call('HDEL', batches, id)
end

-- Whether all that a message has, and nothing else, is this packed list.
local function has_just(id, packed)
  return redis.call('HGET', batches, id) == packed and redis.call('HGET', sizes, id) == whole(#packed / 32)
end

-- Let the claims of a message last, in `queued` or `running`; options are those of ZADD.
local function keep(deadlines, id, now, ttl, ...)
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
