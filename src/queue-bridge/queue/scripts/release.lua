-- Returns a job to the queue, now or after a delay.
--
-- KEYS     none
-- ARGV[1]  prefix        prefix of all keys
-- ARGV[2]  id            id of the job
-- ARGV[3]  token         token of the lease
-- ARGV[4]  is_spent      1: the attempt counts
-- ARGV[5]  delay_ms      time until the job may be claimed; 0: now
-- ARGV[6]  keeps_server  1: the next attempt goes to the same server
-- ARGV[7]  reason        why the attempt ended
--
-- Returns held, or lost: another worker has the lease, or none
--
-- @include lib/base.lua
-- @include lib/enqueue.lua
local id, token, is_spent, delay_ms = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local keeps_server, reason = ARGV[6], ARGV[7]

if not owns(id, token) then return 'lost' end
redis.call('ZREM', prefix .. 'leases', id)
redis.call('HSET', job(id), 'last_error', reason)
if keeps_server == '0' then redis.call('HSET', job(id), 'server', '') end
if is_spent == '0' then redis.call('HINCRBY', job(id), 'attempts', -1) end
if delay_ms > 0 then
  redis.call('HSET', job(id), 'state', 'delayed', 'token', '')
  redis.call('ZADD', prefix .. 'delayed', int(now + delay_ms), id)
else
  enqueue(id)
end
return 'held'
