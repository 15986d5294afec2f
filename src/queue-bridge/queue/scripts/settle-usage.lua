-- Records the result of the delivery of a usage record.
--
-- KEYS     none
-- ARGV[1]  prefix        prefix of all keys
-- ARGV[2]  id            id of the job
-- ARGV[3]  run           run of the job
-- ARGV[4]  token         token of the delivery
-- ARGV[5]  result        delivered, retry or dead
-- ARGV[6]  delay_ms      retry: time until the next attempt
-- ARGV[7]  reason        retry, dead: why the attempt failed
-- ARGV[8]  retention_ms  time that a record which was given up is kept
--
-- Returns held, or lost: another worker delivers the record
--
-- @include lib/base.lua
local id, run, token, result = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local delay_ms, reason, retention_ms = tonumber(ARGV[6]), ARGV[7], ARGV[8]

local member = id .. ':' .. run
local record = prefix .. 'usage:' .. member
if redis.call('HGET', record, 'token') ~= token then return 'lost' end
redis.call('HSET', record, 'token', '', 'error', reason)
if result == 'retry' then
  redis.call('HINCRBY', record, 'attempts', 1)
  redis.call('ZADD', prefix .. 'usage', int(now + delay_ms), member)
  return 'held'
end
redis.call('ZREM', prefix .. 'usage', member)
redis.call('ZREM', prefix .. 'usage-since', member)
if result == 'delivered' then
  redis.call('DEL', record)
else
  redis.call('PEXPIRE', record, retention_ms)
  redis.call('ZADD', prefix .. 'dead-usage', int(now), member)
end
-- Records that have expired leave the list here, a few at a time.
for _, old in ipairs(redis.call('ZRANGE', prefix .. 'dead-usage', 0, 9)) do
  if redis.call('EXISTS', prefix .. 'usage:' .. old) == 0 then redis.call('ZREM', prefix .. 'dead-usage', old) end
end
return 'held'
