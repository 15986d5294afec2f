-- Writes fields of a journal.
--
-- KEYS      none
-- ARGV[1]   prefix  prefix of all keys
-- ARGV[2]   id      id of the job
-- ARGV[3]   token   token of the lease
-- ARGV[4..] for each field:
--           field   its name
--           value   its value
--
-- Returns held, or lost: another worker has the lease, or none
--
-- @include lib/base.lua
local id, token = ARGV[2], ARGV[3]
local FIRST_ROW = 4

if not owns(id, token) then return 'lost' end
redis.call('HSET', job(id), unpack(ARGV, FIRST_ROW))
return 'held'
