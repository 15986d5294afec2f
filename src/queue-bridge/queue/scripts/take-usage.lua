-- Leases usage records that are due to a worker, which delivers them. They have receiver and order of their own: callbacks do not
-- wait for them.
--
-- KEYS     none
-- ARGV[1]  prefix    prefix of all keys
-- ARGV[2]  token     token of the deliveries
-- ARGV[3]  most      largest number of them
-- ARGV[4]  lease_ms  time after which another worker may deliver them
--
-- Returns {id, run, body, attempts, age_ms, traceparent} of each delivery
--
-- @include lib/base.lua
local token, most, lease_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local taken = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'usage', '-inf', int(now), 'LIMIT', 0, most)) do
  local record = prefix .. 'usage:' .. member
  local id, run, body, attempts, since, traceparent = unpack(
    redis.call('HMGET', record, 'id', 'run', 'body', 'attempts', 'since', 'traceparent')
  )
  if not id then
    redis.call('ZREM', prefix .. 'usage', member)
    redis.call('ZREM', prefix .. 'usage-since', member)
  else
    redis.call('HSET', record, 'token', token)
    redis.call('ZADD', prefix .. 'usage', int(now + lease_ms), member)
    taken[#taken + 1] = {id, run, body, attempts, int(now - tonumber(since)), traceparent}
  end
end
return taken
