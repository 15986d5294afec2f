-- Returns one journal.
--
-- KEYS     none
-- ARGV[1]  prefix  prefix of all keys
-- ARGV[2]  id      id of the job
--
-- Returns the journal as field, value, field, value; empty: there is none
--
-- @include lib/base.lua
local id = ARGV[2]

return redis.call('HGETALL', job(id))
