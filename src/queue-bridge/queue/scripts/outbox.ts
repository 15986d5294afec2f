import { defineScript } from './script.js';

/**
 * prefix, token, most, leaseMs -> [id, kind, run, type, user, body, attempts, ageMs] for each
 *
 * A job has at most one callback on its way; a terminal one replaces a `processing` that is still due.
 */
export const takeDeliveriesScript = defineScript(`
local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'outbox', '-inf', int(now), 'LIMIT', 0, tonumber(ARGV[3]))) do
  local f = redis.call('HMGET', job(id), 'cb', 'pcb', 'run', 'type', 'user', 'callback', 'cb_attempts', 'cb_since')
  local kind = f[1] == 'due' and 'terminal' or f[2] == 'due' and 'processing'
  if not kind then
    redis.call('ZREM', P .. 'outbox', id)
  else
    if kind == 'terminal' and f[2] == 'due' then redis.call('HSET', job(id), 'pcb', 'dropped') end
    local deadline = int(now + tonumber(ARGV[4]))
    redis.call('HSET', job(id), 'cb_token', ARGV[2], 'cb_kind', kind, 'cb_until', deadline)
    redis.call('ZADD', P .. 'outbox', deadline, id)
    local body = kind == 'terminal' and f[6] or ''
    taken[#taken + 1] = {id, kind, f[3], f[4], f[5], body, f[7], int(now - tonumber(f[8]))}
  end
end
return taken
`);

/** prefix, id, token, result, delayMs, reason, retentionMs -> lost or held */
export const settleScript = defineScript(`
local id, result = ARGV[2], ARGV[4]
local f = redis.call('HMGET', job(id), 'cb_token', 'cb_kind', 'cb', 'pcb', 'state')
if f[1] ~= ARGV[3] then return 'lost' end
redis.call('HSET', job(id), 'cb_token', '')
local is_processing = f[2] == 'processing'
if is_processing then
  if result ~= 'retry' then redis.call('HSET', job(id), 'pcb', result == 'dead' and 'dropped' or result) end
  if f[3] == 'due' then
    redis.call('HSET', job(id), 'pcb', result == 'delivered' and 'delivered' or 'dropped')
    redis.call('ZADD', P .. 'outbox', int(now), id)
    return 'held'
  end
end
if result == 'retry' then
  redis.call('HINCRBY', job(id), 'cb_attempts', 1)
  redis.call('HSET', job(id), 'cb_error', ARGV[6])
  redis.call('ZADD', P .. 'outbox', int(now + tonumber(ARGV[5])), id)
  return 'held'
end
redis.call('ZREM', P .. 'outbox', id)
if is_processing then return 'held' end
redis.call('HSET', job(id), 'cb', result)
if result == 'dead' then
  redis.call('HSET', job(id), 'cb_error', ARGV[6])
  redis.call('ZADD', P .. 'dead-callbacks', int(now), id)
else
  redis.call('HSET', job(id), 'called_back_at', int(now))
  if f[5] ~= 'dead' then redis.call('PEXPIRE', job(id), ARGV[7]) end
  -- Those that were forgotten leave the index.
  for _, old in ipairs(redis.call('ZRANGE', P .. 'jobs', 0, 9)) do
    if redis.call('EXISTS', job(old)) == 0 then redis.call('ZREM', P .. 'jobs', old) end
  end
end
return 'held'
`);
