-- Makes the terminal callback due. If a delivery is in flight, it becomes due when that one is settled or its lease expires.
local function call_back(id)
  redis.call('HSET', job(id), 'cb', 'due', 'cb_attempts', '0', 'cb_since', int(now))
  redis.call('PERSIST', job(id))
  redis.call('ZREM', prefix .. 'dead-callbacks', id)
  redis.call('ZADD', prefix .. 'outbox-since', int(now), id)
  local token, deadline = unpack(redis.call('HMGET', job(id), 'cb_token', 'cb_until'))
  if not token or token == '' or tonumber(deadline) <= now then redis.call('ZADD', prefix .. 'outbox', int(now), id) end
end
