-- @include lib/call-back.lua

-- Ends a job and makes its callback due, in one step.
local function end_job(id, state, body, calls_back, retention_ms)
  redis.call('HSET', job(id), 'state', state, 'callback', body, 'token', '', 'ended_at', int(now))
  redis.call('ZREM', prefix .. 'leases', id)
  redis.call('ZREM', prefix .. 'delayed', id)
  redis.call('DEL', prefix .. 'cancel:' .. id)
  if state == 'dead' then redis.call('ZADD', prefix .. 'dead', int(now), id) end
  if calls_back == '1' then
    call_back(id)
  elseif state ~= 'dead' then
    redis.call('PEXPIRE', job(id), retention_ms)
  end
end
