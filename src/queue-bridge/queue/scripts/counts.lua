-- Counts jobs and callbacks by where they are.
--
-- KEYS[1..]  the producers' lists
-- ARGV[1]    prefix  prefix of all other keys
--
-- Returns {pushed, waiting, delayed, leased, callbacks, dead, dead callbacks, rejected}
--
-- @include lib/base.lua
local pushed, waiting = 0, 0
for _, list in ipairs(KEYS) do pushed = pushed + redis.call('LLEN', list) end
for _, lane in ipairs({'sdxl', 'wan'}) do
  for _, user in ipairs(redis.call('ZRANGE', prefix .. 'users:' .. lane, 0, -1)) do
    waiting = waiting + redis.call('ZCARD', prefix .. 'line:' .. lane .. ':' .. user)
  end
end
local function size(set) return redis.call('ZCARD', prefix .. set) end
return {pushed, waiting, size('delayed'), size('leases'), size('outbox'), size('dead'), size('dead-callbacks'),
  redis.call('LLEN', prefix .. 'rejected')}
