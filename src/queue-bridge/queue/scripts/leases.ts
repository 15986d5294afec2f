import { defineScript } from './script.js';

/**
 * prefix, token, worker, leaseMs, seed, callsBack, then lane, weight, server for each. -> [id, isCancelled, journal] or nil
 *
 * Lanes share by stride scheduling: each claim moves its lane on by 1 / weight, the one furthest behind is next, and a lane
 * that had nothing to do starts where the others are. Users of a lane take turns.
 */
export const claimScript = defineScript(`
local token = ARGV[2]
local function claimed(id) return {id, redis.call('EXISTS', P .. 'cancel:' .. id), redis.call('HGETALL', job(id))} end
local before = redis.call('GET', P .. 'claim:' .. token)
if before and owns(before, token) then return claimed(before) end

local floor = tonumber(redis.call('HGET', P .. 'passes', 'floor') or '0')
local lane, pass, weight, server
for i = 7, #ARGV, 3 do
  if redis.call('ZCARD', P .. 'users:' .. ARGV[i]) > 0 then
    local own = math.max(floor, tonumber(redis.call('HGET', P .. 'passes', ARGV[i]) or '0'))
    if not lane or own < pass then lane, pass, weight, server = ARGV[i], own, tonumber(ARGV[i + 1]), ARGV[i + 2] end
  end
end
if not lane then return nil end
redis.call('HSET', P .. 'passes', lane, string.format('%.6f', pass + 1 / weight), 'floor', string.format('%.6f', pass))

local users = P .. 'users:' .. lane
local user = redis.call('ZRANGE', users, 0, 0)[1]
local line = P .. 'line:' .. lane .. ':' .. user
local id = redis.call('ZRANGE', line, 0, 0)[1]
redis.call('ZREM', line, id)
if redis.call('ZCARD', line) == 0 then
  redis.call('ZREM', users, user)
else
  redis.call('ZADD', users, redis.call('INCR', P .. 'turn'), user)
end

local deadline = now + tonumber(ARGV[4])
redis.call('ZADD', P .. 'leases', int(deadline), id)
redis.call('SET', P .. 'claim:' .. token, id, 'PX', ARGV[4])
redis.call('HSET', job(id), 'state', 'leased', 'token', token, 'worker', ARGV[3], 'started_at', int(now))
redis.call('HINCRBY', job(id), 'attempts', 1)
redis.call('HSETNX', job(id), 'seed', ARGV[5])
if (redis.call('HGET', job(id), 'server') or '') == '' then redis.call('HSET', job(id), 'server', server) end
if ARGV[6] == '1' and redis.call('HSETNX', job(id), 'pcb', 'due') == 1 then
  redis.call('HSET', job(id), 'cb_attempts', '0', 'cb_since', int(now))
  redis.call('ZADD', P .. 'outbox', int(now), id)
end
return claimed(id)
`);

/** prefix, id, token, leaseMs, progress, progressMs, publishes -> lost, cancelled or held */
export const heartbeatScript = defineScript(`
local id = ARGV[2]
if not owns(id, ARGV[3]) then return 'lost' end
redis.call('ZADD', P .. 'leases', int(now + tonumber(ARGV[4])), id)
if ARGV[5] ~= '' then
  redis.call('SET', P .. 'progress:' .. id, ARGV[5], 'PX', ARGV[6])
  if ARGV[7] == '1' then redis.call('PUBLISH', P .. 'progress:' .. id, ARGV[5]) end
end
return redis.call('EXISTS', P .. 'cancel:' .. id) == 1 and 'cancelled' or 'held'
`);

/** prefix, id, token, then field, value for each -> lost or held */
export const recordScript = defineScript(`
if not owns(ARGV[2], ARGV[3]) then return 'lost' end
redis.call('HSET', job(ARGV[2]), unpack(ARGV, 4))
return 'held'
`);

/** prefix, id, token, isSpent, delayMs, keepsServer, reason -> lost or held */
export const releaseScript = defineScript(`
local id = ARGV[2]
if not owns(id, ARGV[3]) then return 'lost' end
redis.call('ZREM', P .. 'leases', id)
redis.call('HSET', job(id), 'last_error', ARGV[7])
if ARGV[6] == '0' then redis.call('HSET', job(id), 'server', '') end
if ARGV[4] == '0' then redis.call('HINCRBY', job(id), 'attempts', -1) end
if tonumber(ARGV[5]) > 0 then
  redis.call('HSET', job(id), 'state', 'delayed', 'token', '')
  redis.call('ZADD', P .. 'delayed', int(now + tonumber(ARGV[5])), id)
else
  enqueue(id)
end
return 'held'
`);

/** prefix, id, token, state, body, callsBack, retentionMs, progress, progressMs, publishes -> lost or held */
export const finishScript = defineScript(`
local id, token = ARGV[2], ARGV[3]
if redis.call('HGET', job(id), 'ended_by') == token then return 'held' end
if not owns(id, token) then return 'lost' end
redis.call('HSET', job(id), 'ended_by', token)
finish(id, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
redis.call('SET', P .. 'progress:' .. id, ARGV[8], 'PX', ARGV[9])
if ARGV[10] == '1' then redis.call('PUBLISH', P .. 'progress:' .. id, ARGV[8]) end
return 'held'
`);
