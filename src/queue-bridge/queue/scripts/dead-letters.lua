-- Lists what was given up.
--
-- KEYS     none
-- ARGV[1]  prefix  prefix of all keys
-- ARGV[2]  most    largest number of entries of each list
--
-- Returns {ids of dead jobs, ids of jobs with a dead callback, records of rejected payloads, <id>:<run> of dead usage records}
--
-- @include lib/base.lua
local last = tonumber(ARGV[2]) - 1

return {redis.call('ZRANGE', prefix .. 'dead', 0, last), redis.call('ZRANGE', prefix .. 'dead-callbacks', 0, last),
  redis.call('LRANGE', prefix .. 'rejected', 0, last), redis.call('ZRANGE', prefix .. 'dead-usage', 0, last)}
