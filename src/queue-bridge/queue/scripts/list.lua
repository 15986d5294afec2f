-- Lists journals, newest first.
--
-- KEYS     none
-- ARGV[1]  prefix  prefix of all keys
-- ARGV[2]  most    largest number of journals
-- ARGV[3]  state   only jobs in this state; empty: all
--
-- Returns the journals, each as field, value, field, value
--
-- @include lib/base.lua
local most, wanted = tonumber(ARGV[2]), ARGV[3]

local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', prefix .. 'jobs', 0, 99999)) do
  local state = redis.call('HGET', job(id), 'state')
  if not state then
    redis.call('ZREM', prefix .. 'jobs', id)
  elseif wanted == '' or wanted == state then
    found[#found + 1] = redis.call('HGETALL', job(id))
    if #found >= most then break end
  end
end
return found
