-- Cancels a job: at once if it waits, through its worker if it runs, on arrival if it has not come yet.
--
-- The server of an earlier attempt may still render a waiting job. Its run becomes a stray: the next poll returns it to a bridge, which
-- cancels it there.
--
-- The journal says whether the job is called back: the bridge that admitted it knew, and the caller of this script may not.
--
-- KEYS     none
-- ARGV[1]  prefix        prefix of all keys
-- ARGV[2]  id            id of the job
-- ARGV[3]  keep_ms       time that a cancel waits for a job that has not come yet
-- ARGV[4]  retention_ms  time that an ended job is kept
-- ARGV[5]  body          body of the callback of a job that has not started
--
-- Returns cancelled, asked (its worker ends it), noted (it ends when it comes) or ended (before)
--
-- @include lib/base.lua
-- @include lib/end-job.lua
local id, keep_ms, retention_ms, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local state, lane, user, calls_back, server, server_job, run = unpack(
  redis.call('HMGET', job(id), 'state', 'lane', 'user', 'calls_back', 'server', 'server_job', 'run')
)
if state == 'waiting' or state == 'delayed' then
  local line = prefix .. 'line:' .. lane .. ':' .. user
  redis.call('ZREM', line, id)
  if redis.call('ZCARD', line) == 0 then redis.call('ZREM', prefix .. 'users:' .. lane, user) end
  if server and server ~= '' then
    redis.call('ZADD', prefix .. 'strays', int(now), server .. ' ' .. (server_job or (run == '1' and id or id .. ':' .. run)))
  end
  end_job(id, 'cancelled', body, calls_back, retention_ms)
  return 'cancelled'
end
if state and state ~= 'leased' then return 'ended' end
redis.call('SET', prefix .. 'cancel:' .. id, '1', 'PX', keep_ms)
return state and 'asked' or 'noted'
