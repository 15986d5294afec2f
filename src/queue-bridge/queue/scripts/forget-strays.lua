-- Forgets stray runs that were cancelled on their servers.
--
-- KEYS      none
-- ARGV[1]   prefix  prefix of all keys
-- ARGV[2..] for each run:
--           run     its entry, as poll returned it
--
-- Returns the number of entries that were removed
--
-- @include lib/base.lua
local FIRST_ROW = 2

return redis.call('ZREM', prefix .. 'strays', unpack(ARGV, FIRST_ROW))
