/*
 * The transitions of a job as Lua, the same for both ways to Redis. Keys, all under a prefix:
 *
 *   job:<id>             hash: the journal
 *   jobs                 sorted set: ids by when they came
 *   line:<lane>:<user>   sorted set: waiting ids by when they came
 *   users:<lane>         sorted set: users with waiting jobs by turn; the lowest is next
 *   passes               hash: how far each lane has come, for their shares
 *   leases, delayed      sorted sets: ids by deadline
 *   outbox               sorted set: ids by when a callback is due
 *   claim:<token>        the id that a claim got, for a claim whose answer was lost
 *   cancel:<id>          set by whoever wants a job cancelled
 *   progress:<id>        JSON; also a channel
 *   dead, dead-callbacks sorted sets: ids by when they were given up
 *   rejected             list: JSON records of payloads without an id
 *
 * Keys are made inside the scripts, so a cluster that spreads keys over nodes cannot run them. Time is Redis' own.
 */
export const prelude = `
local P = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function int(n) return string.format('%.0f', n) end
local function job(id) return P .. 'job:' .. id end
local function owns(id, token) return redis.call('HGET', job(id), 'token') == token end

-- Puts a job into its line, at the place it came in.
local function enqueue(id)
  local f = redis.call('HMGET', job(id), 'lane', 'user', 'seq')
  if not f[1] then return end
  redis.call('ZADD', P .. 'line:' .. f[1] .. ':' .. f[2], f[3], id)
  local users = P .. 'users:' .. f[1]
  if not redis.call('ZSCORE', users, f[2]) then
    redis.call('ZADD', users, redis.call('INCR', P .. 'turn'), f[2])
  end
  redis.call('HSET', job(id), 'state', 'waiting', 'token', '')
end

-- Takes a waiting job out of its line.
local function leave(id, lane, user)
  local line = P .. 'line:' .. lane .. ':' .. user
  redis.call('ZREM', line, id)
  if redis.call('ZCARD', line) == 0 then redis.call('ZREM', P .. 'users:' .. lane, user) end
end

-- Makes the terminal callback due, unless a delivery is under way: then when that one is settled or late.
local function call_back(id)
  redis.call('HSET', job(id), 'cb', 'due', 'cb_attempts', '0', 'cb_since', int(now))
  redis.call('PERSIST', job(id))
  redis.call('ZREM', P .. 'dead-callbacks', id)
  local busy = redis.call('HMGET', job(id), 'cb_token', 'cb_until')
  if not busy[1] or busy[1] == '' or tonumber(busy[2]) <= now then redis.call('ZADD', P .. 'outbox', int(now), id) end
end

-- The end of a job and its callback, in one step.
local function finish(id, state, body, calls_back, retention)
  redis.call('HSET', job(id), 'state', state, 'callback', body, 'token', '', 'ended_at', int(now))
  redis.call('ZREM', P .. 'leases', id)
  redis.call('ZREM', P .. 'delayed', id)
  redis.call('DEL', P .. 'cancel:' .. id)
  if state == 'dead' then redis.call('ZADD', P .. 'dead', int(now), id) end
  if calls_back == '1' then
    call_back(id)
  elseif state ~= 'dead' then
    redis.call('PEXPIRE', job(id), retention)
  end
end
`;
