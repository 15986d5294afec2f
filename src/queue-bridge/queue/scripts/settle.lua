-- Records the result of a delivery.
--
-- KEYS     none
-- ARGV[1]  prefix        prefix of all keys
-- ARGV[2]  id            id of the job
-- ARGV[3]  token         token of the delivery
-- ARGV[4]  result        delivered, retry or dead
-- ARGV[5]  delay_ms      retry: time until the next attempt
-- ARGV[6]  reason        retry, dead: why the attempt failed
-- ARGV[7]  retention_ms  time that an ended job is kept
--
-- Returns held, or lost: another worker delivers the callback
--
-- @include lib/base.lua
local id, token, result = ARGV[2], ARGV[3], ARGV[4]
local delay_ms, reason, retention_ms = tonumber(ARGV[5]), ARGV[6], ARGV[7]

local owner, kind, terminal, state = unpack(redis.call('HMGET', job(id), 'cb_token', 'cb_kind', 'cb', 'state'))
if owner ~= token then return 'lost' end
redis.call('HSET', job(id), 'cb_token', '')
local is_processing = kind == 'processing'
if is_processing then
  if result ~= 'retry' then redis.call('HSET', job(id), 'pcb', result == 'dead' and 'dropped' or result) end
  if terminal == 'due' then
    redis.call('HSET', job(id), 'pcb', result == 'delivered' and 'delivered' or 'dropped')
    redis.call('ZADD', prefix .. 'outbox', int(now), id)
    return 'held'
  end
end
if result == 'retry' then
  redis.call('HINCRBY', job(id), 'cb_attempts', 1)
  redis.call('HSET', job(id), 'cb_error', reason)
  redis.call('ZADD', prefix .. 'outbox', int(now + delay_ms), id)
  return 'held'
end
redis.call('ZREM', prefix .. 'outbox', id)
redis.call('ZREM', prefix .. 'outbox-since', id)
if is_processing then return 'held' end
redis.call('HSET', job(id), 'cb', result)
if result == 'dead' then
  redis.call('HSET', job(id), 'cb_error', reason)
  redis.call('ZADD', prefix .. 'dead-callbacks', int(now), id)
else
  redis.call('HSET', job(id), 'called_back_at', int(now))
  if state ~= 'dead' then redis.call('PEXPIRE', job(id), retention_ms) end
  -- Expired journals leave the index here, a few at a time.
  for _, old in ipairs(redis.call('ZRANGE', prefix .. 'jobs', 0, 9)) do
    if redis.call('EXISTS', job(old)) == 0 then redis.call('ZREM', prefix .. 'jobs', old) end
  end
end
return 'held'
