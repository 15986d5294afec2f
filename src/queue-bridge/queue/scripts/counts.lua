-- Counts jobs, callbacks and usage records by where they are.
--
-- KEYS[1..]  the producers' lists
-- ARGV[1]    prefix  prefix of all other keys
-- ARGV[2..]  for each lane that the caller has:
--            lane    its name
--
-- Returns {pushed, waiting, delayed, leased, callbacks, dead, dead callbacks, rejected, usage, dead usage, callback_ms, usage_ms}
--   callback_ms, usage_ms  time since when the oldest of each is due; -1: there is none
--
-- @include lib/base.lua
-- @include lib/waiting-by-user.lua
local FIRST_ROW = 2

local pushed, waiting = 0, 0
for _, list in ipairs(KEYS) do pushed = pushed + redis.call('LLEN', list) end
for _, jobs in pairs(waiting_by_user(FIRST_ROW)) do waiting = waiting + jobs end
local function size(set) return redis.call('ZCARD', prefix .. set) end
local function age(set)
  local _, since = unpack(redis.call('ZRANGE', prefix .. set, 0, 0, 'WITHSCORES'))
  return since and math.max(0, now - tonumber(since)) or -1
end
return {pushed, waiting, size('delayed'), size('leases'), size('outbox'), size('dead'), size('dead-callbacks'),
  redis.call('LLEN', prefix .. 'rejected'), size('usage'), size('dead-usage'), age('outbox-since'), age('usage-since')}
