-- Puts a job into the queue of its lane and user, at the place of its arrival.
local function enqueue(id)
  local lane, user, seq, server = unpack(redis.call('HMGET', job(id), 'lane', 'user', 'seq', 'server'))
  if not lane then return end
  redis.call('SADD', prefix .. 'lanes', lane)
  redis.call('ZADD', prefix .. 'line:' .. lane .. ':' .. user, seq, id)
  local users = prefix .. 'users:' .. lane
  if not redis.call('ZSCORE', users, user) then
    redis.call('ZADD', users, redis.call('INCR', prefix .. 'turn'), user)
  end
  if server and server ~= '' then redis.call('ZADD', prefix .. 'kept:' .. lane, seq, id) end
  redis.call('HSET', job(id), 'state', 'waiting', 'token', '')
end
