-- Repeats an ended job: the callback of a completed one, otherwise the whole job with the same seed. Usage records of the job that
-- were given up become due again.
--
-- KEYS     none
-- ARGV[1]  prefix         prefix of all keys
-- ARGV[2]  id             id of the job
-- ARGV[3]  callback_only  1: repeats the callback whatever the job ended with
--
-- Returns runs, calls back, unknown or not ended
--
-- @include lib/base.lua
-- @include lib/enqueue.lua
-- @include lib/call-back.lua
local id, callback_only = ARGV[2], ARGV[3]

local state, payload = unpack(redis.call('HMGET', job(id), 'state', 'payload'))
if not state then return 'unknown' end
if state == 'waiting' or state == 'delayed' or state == 'leased' then return 'not ended' end
for run = 1, tonumber(redis.call('HGET', job(id), 'run')) do
  local member = id .. ':' .. run
  if redis.call('ZREM', prefix .. 'dead-usage', member) == 1 and redis.call('EXISTS', prefix .. 'usage:' .. member) == 1 then
    redis.call('PERSIST', prefix .. 'usage:' .. member)
    redis.call('HSET', prefix .. 'usage:' .. member, 'attempts', '0', 'since', int(now))
    redis.call('ZADD', prefix .. 'usage', int(now), member)
    redis.call('ZADD', prefix .. 'usage-since', int(now), member)
  end
end
if state == 'completed' or callback_only == '1' or payload == '' then
  call_back(id)
  return 'calls back'
end
for _, field in ipairs(redis.call('HKEYS', job(id))) do
  if string.sub(field, 1, 7) == 'upload:' then redis.call('HDEL', job(id), field) end
end
redis.call('HDEL', job(id), 'generated', 'server', 'server_job', 'callback', 'ended_at', 'ended_by',
  'cb', 'pcb', 'cb_token', 'cb_until', 'cb_error')
redis.call('HINCRBY', job(id), 'run', 1)
redis.call('HSET', job(id), 'attempts', '0')
redis.call('PERSIST', job(id))
for _, set in ipairs({'dead', 'dead-callbacks', 'outbox', 'outbox-since'}) do redis.call('ZREM', prefix .. set, id) end
enqueue(id)
return 'runs'
