-- Tries the commands that a bridge needs and that a restricted user or a full store may refuse.
--
-- KEYS     none
-- ARGV[1]  prefix     prefix of all keys
-- ARGV[2]  publishes  1: publishing is tried, too
--
-- Returns the error of a write and the error of a publish, each empty if there was none
-- lib/base.lua is not included: it runs a command that a restricted user may not have
local prefix, publishes = ARGV[1], ARGV[2]

local function problem(reply)
  return type(reply) == 'table' and reply.err or ''
end

local write = problem(redis.pcall('SET', prefix .. 'check', '1', 'PX', 1000))
local publish = publishes == '1' and problem(redis.pcall('PUBLISH', prefix .. 'check', '1')) or ''
return { write, publish }
