-- Leases the next job to a worker.
--
-- Lanes share by stride scheduling: each claim advances its lane by 1 / weight, and the lane that is furthest behind is next. A
-- lane that had nothing to do starts where the others are. Users of a lane take turns.
--
-- KEYS      none
-- ARGV[1]   prefix      prefix of all keys
-- ARGV[2]   token       chosen by the worker; a second claim with it gets the same job
-- ARGV[3]   worker      name of the worker, for operators
-- ARGV[4]   lease_ms    length of the lease
-- ARGV[5]   seed        seed of the job if its journal has none
-- ARGV[6]   calls_back  1: the start is called back
-- ARGV[7]   traceparent of the job if its journal has none; empty: none
-- ARGV[8..] for each lane that the worker takes jobs of:
--           lane        its name
--           weight      its share while several lanes have jobs
--           server      server of the job if its journal has none
--           keeps       1: the server takes no jobs, only one that it has already is claimed
--
-- Returns {id, is_cancelled, journal}, the journal as field, value, field, value; nil: no job waits
--
-- @include lib/base.lua
local token, worker, lease_ms, seed = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local calls_back, traceparent = ARGV[6], ARGV[7]
local FIRST_ROW, COLUMNS = 8, 4

local function claimed(id)
  return {id, redis.call('EXISTS', prefix .. 'cancel:' .. id), redis.call('HGETALL', job(id))}
end
local before = redis.call('GET', prefix .. 'claim:' .. token)
if before and owns(before, token) then return claimed(before) end

-- The user whose turn it is, and the user's oldest job.
local function next_job(lane)
  local user = redis.call('ZRANGE', prefix .. 'users:' .. lane, 0, 0)[1]
  if user then return user, redis.call('ZRANGE', prefix .. 'line:' .. lane .. ':' .. user, 0, 0)[1] end
end

-- The oldest job that a server may have, and its user.
local function kept_job(lane, its_server)
  for _, id in ipairs(redis.call('ZRANGE', prefix .. 'kept:' .. lane, 0, -1)) do
    local state, its, user = unpack(redis.call('HMGET', job(id), 'state', 'server', 'user'))
    if state ~= 'waiting' then
      redis.call('ZREM', prefix .. 'kept:' .. lane, id)
    elseif its == its_server then
      return user, id
    end
  end
end

-- 1. The lane, and the job.
local floor = tonumber(redis.call('HGET', prefix .. 'passes', 'floor') or '0')
local lane, pass, weight, server, user, id
for i = FIRST_ROW, #ARGV, COLUMNS do
  local candidate, its_weight, its_server, keeps = unpack(ARGV, i, i + COLUMNS - 1)
  local its_user, its_id
  if keeps == '1' then
    its_user, its_id = kept_job(candidate, its_server)
  else
    its_user, its_id = next_job(candidate)
  end
  if its_id then
    local its_pass = math.max(floor, tonumber(redis.call('HGET', prefix .. 'passes', candidate) or '0'))
    if not lane or its_pass < pass then
      lane, pass, weight, server = candidate, its_pass, tonumber(its_weight), its_server
      user, id = its_user, its_id
    end
  end
end
if not lane then return nil end
redis.call('HSET', prefix .. 'passes', lane, string.format('%.6f', pass + 1 / weight), 'floor', string.format('%.6f', pass))

-- 2. Out of the line.
local users = prefix .. 'users:' .. lane
local line = prefix .. 'line:' .. lane .. ':' .. user
redis.call('ZREM', line, id)
redis.call('ZREM', prefix .. 'kept:' .. lane, id)
if redis.call('ZCARD', line) == 0 then
  redis.call('ZREM', users, user)
else
  redis.call('ZADD', users, redis.call('INCR', prefix .. 'turn'), user)
end

-- 3. The lease.
redis.call('ZADD', prefix .. 'leases', int(now + lease_ms), id)
redis.call('SET', prefix .. 'claim:' .. token, id, 'PX', int(lease_ms))
redis.call('HSET', job(id), 'state', 'leased', 'token', token, 'worker', worker, 'started_at', int(now))
redis.call('HINCRBY', job(id), 'attempts', 1)
redis.call('HSETNX', job(id), 'seed', seed)
if traceparent ~= '' then redis.call('HSETNX', job(id), 'traceparent', traceparent) end
if (redis.call('HGET', job(id), 'server') or '') == '' then redis.call('HSET', job(id), 'server', server) end
if calls_back == '1' and redis.call('HSETNX', job(id), 'pcb', 'due') == 1 then
  redis.call('HSET', job(id), 'cb_attempts', '0', 'cb_since', int(now))
  redis.call('ZADD', prefix .. 'outbox', int(now), id)
  redis.call('ZADD', prefix .. 'outbox-since', int(now), id)
end
return claimed(id)
