-- Ends a job and puts its callback and its usage record into their outboxes.
--
-- KEYS     none
-- ARGV[1]  prefix        prefix of all keys
-- ARGV[2]  id            id of the job
-- ARGV[3]  token         token of the lease
-- ARGV[4]  state         completed, failed, dead or cancelled
-- ARGV[5]  body          body of the terminal callback
-- ARGV[6]  calls_back    1: the end is called back
-- ARGV[7]  retention_ms  time that an ended job is kept
-- ARGV[8]  progress      last progress, JSON
-- ARGV[9]  progress_ms   time that the progress is kept
-- ARGV[10] publishes     1: the progress is published too
-- ARGV[11] usage         body of the usage record; empty: none is sent
-- ARGV[12] is_spent      0: the attempt is not counted, because it did not begin
--
-- Returns held, also when this lease ended the job before; lost: another worker has the lease, or none
--
-- @include lib/base.lua
-- @include lib/end-job.lua
-- @include lib/write-progress.lua
local id, token, state, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local calls_back, retention_ms = ARGV[6], ARGV[7]
local progress, progress_ms, publishes, usage, is_spent = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]

if redis.call('HGET', job(id), 'ended_by') == token then return 'held' end
if not owns(id, token) then return 'lost' end
redis.call('HSET', job(id), 'ended_by', token)
if is_spent == '0' then redis.call('HINCRBY', job(id), 'attempts', -1) end
end_job(id, state, body, calls_back, retention_ms)
if usage ~= '' then
  local run, traceparent = unpack(redis.call('HMGET', job(id), 'run', 'traceparent'))
  local member = id .. ':' .. run
  redis.call('HSET', prefix .. 'usage:' .. member, 'id', id, 'run', run, 'body', usage, 'traceparent', traceparent or '',
    'attempts', '0', 'since', int(now), 'token', '')
  redis.call('ZADD', prefix .. 'usage', int(now), member)
  redis.call('ZADD', prefix .. 'usage-since', int(now), member)
end
write_progress(id, progress, progress_ms, publishes)
return 'held'
