-- Renews a lease and writes the progress of its job.
--
-- KEYS     none
-- ARGV[1]  prefix       prefix of all keys
-- ARGV[2]  id           id of the job
-- ARGV[3]  token        token of the lease
-- ARGV[4]  lease_ms     new length of the lease, from now
-- ARGV[5]  progress     JSON; empty: the progress stays as it is
-- ARGV[6]  progress_ms  time that the progress is kept
-- ARGV[7]  publishes    1: the progress is published too
--
-- Returns held, cancelled (held, but the job is to be cancelled) or lost (another worker has the lease, or none)
--
-- @include lib/base.lua
-- @include lib/write-progress.lua
local id, token, lease_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])
local progress, progress_ms, publishes = ARGV[5], ARGV[6], ARGV[7]

if not owns(id, token) then return 'lost' end
redis.call('ZADD', prefix .. 'leases', int(now + lease_ms), id)
if progress ~= '' then write_progress(id, progress, progress_ms, publishes) end
return redis.call('EXISTS', prefix .. 'cancel:' .. id) == 1 and 'cancelled' or 'held'
