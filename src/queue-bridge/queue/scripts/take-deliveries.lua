-- Leases callbacks that are due to a worker, which delivers them.
--
-- A job has at most one callback in flight. A terminal one replaces a `processing` one that is still due.
--
-- KEYS     none
-- ARGV[1]  prefix    prefix of all keys
-- ARGV[2]  token     token of the deliveries
-- ARGV[3]  most      largest number of them
-- ARGV[4]  lease_ms  time after which another worker may deliver them
--
-- Returns {id, kind, run, type, user, body, attempts, age_ms, total_ms, traceparent} of each delivery; total_ms: since the job came
--
-- @include lib/base.lua
local token, most, lease_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'outbox', '-inf', int(now), 'LIMIT', 0, most)) do
  local terminal, processing, run, job_type, user, body, attempts, since, created_at, traceparent = unpack(
    redis.call('HMGET', job(id), 'cb', 'pcb', 'run', 'type', 'user', 'callback', 'cb_attempts', 'cb_since', 'created_at',
      'traceparent')
  )
  local kind = terminal == 'due' and 'terminal' or processing == 'due' and 'processing'
  if not kind then
    redis.call('ZREM', prefix .. 'outbox', id)
    redis.call('ZREM', prefix .. 'outbox-since', id)
  else
    if kind == 'terminal' and processing == 'due' then redis.call('HSET', job(id), 'pcb', 'dropped') end
    local deadline = int(now + lease_ms)
    redis.call('HSET', job(id), 'cb_token', token, 'cb_kind', kind, 'cb_until', deadline)
    redis.call('ZADD', prefix .. 'outbox', deadline, id)
    taken[#taken + 1] =
      {id, kind, run, job_type, user, kind == 'terminal' and body or '', attempts, int(now - tonumber(since)),
        int(now - tonumber(created_at or now)), traceparent or ''}
  end
end
return taken
