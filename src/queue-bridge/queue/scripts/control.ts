import { defineScript } from './script.js';

/** prefix, most, state or '' -> journals, newest first */
export const listScript = defineScript(`
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', P .. 'jobs', 0, 99999)) do
  local state = redis.call('HGET', job(id), 'state')
  if not state then
    redis.call('ZREM', P .. 'jobs', id)
  elseif ARGV[3] == '' or ARGV[3] == state then
    found[#found + 1] = redis.call('HGETALL', job(id))
    if #found >= tonumber(ARGV[2]) then break end
  end
end
return found
`);

/** prefix, id -> journal */
export const showScript = defineScript(`return redis.call('HGETALL', job(ARGV[2]))`);

/** prefix, queue… -> pushed, waiting, delayed, leased, callbacks, dead, dead callbacks, rejected */
export const countsScript = defineScript(`
local pushed, waiting = 0, 0
for q = 2, #ARGV do pushed = pushed + redis.call('LLEN', ARGV[q]) end
for _, lane in ipairs({'sdxl', 'wan'}) do
  for _, user in ipairs(redis.call('ZRANGE', P .. 'users:' .. lane, 0, -1)) do
    waiting = waiting + redis.call('ZCARD', P .. 'line:' .. lane .. ':' .. user)
  end
end
local function size(set) return redis.call('ZCARD', P .. set) end
return {pushed, waiting, size('delayed'), size('leases'), size('outbox'), size('dead'), size('dead-callbacks'),
  redis.call('LLEN', P .. 'rejected')}
`);

/** prefix, most -> [ids], [ids], [records] */
export const deadScript = defineScript(`
local last = tonumber(ARGV[2]) - 1
return {redis.call('ZRANGE', P .. 'dead', 0, last), redis.call('ZRANGE', P .. 'dead-callbacks', 0, last),
  redis.call('LRANGE', P .. 'rejected', 0, last)}
`);

/** prefix, id, keepMs, retentionMs, body -> cancelled, asked, noted or ended. Whoever took the job in said whether it is called back. */
export const cancelScript = defineScript(`
local id = ARGV[2]
local f = redis.call('HMGET', job(id), 'state', 'lane', 'user', 'calls_back')
if f[1] == 'waiting' or f[1] == 'delayed' then
  leave(id, f[2], f[3])
  finish(id, 'cancelled', ARGV[5], f[4], ARGV[4])
  return 'cancelled'
end
if f[1] and f[1] ~= 'leased' then return 'ended' end
redis.call('SET', P .. 'cancel:' .. id, '1', 'PX', ARGV[3])
return f[1] and 'asked' or 'noted'
`);

/** prefix, id, callbackOnly -> runs, calls back, unknown or not ended */
export const replayScript = defineScript(`
local id = ARGV[2]
local f = redis.call('HMGET', job(id), 'state', 'cb', 'payload')
if not f[1] then return 'unknown' end
if f[1] == 'waiting' or f[1] == 'delayed' or f[1] == 'leased' then return 'not ended' end
if f[1] == 'completed' or ARGV[3] == '1' or f[3] == '' then
  call_back(id)
  return 'calls back'
end
for _, field in ipairs(redis.call('HKEYS', job(id))) do
  if string.sub(field, 1, 7) == 'upload:' then redis.call('HDEL', job(id), field) end
end
redis.call('HDEL', job(id), 'generated', 'server', 'server_job', 'callback', 'ended_at', 'ended_by', 'cb', 'pcb', 'cb_token', 'cb_until', 'cb_error')
redis.call('HINCRBY', job(id), 'run', 1)
redis.call('HSET', job(id), 'attempts', '0')
redis.call('PERSIST', job(id))
for _, set in ipairs({'dead', 'dead-callbacks', 'outbox'}) do redis.call('ZREM', P .. set, id) end
enqueue(id)
return 'runs'
`);
