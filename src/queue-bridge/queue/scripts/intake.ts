import { defineScript } from './script.js';

/** prefix, most, mostBytes, readBytes, queue… -> [lanes, due, nextDueMs or -1, [queue, sha1, bytes, raw]…] */
export const pollScript = defineScript(`
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', int(now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', P .. 'leases', id)
  redis.call('HSET', job(id), 'last_error', 'its worker was not heard of for the time of a lease')
  enqueue(id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', int(now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', P .. 'delayed', id)
  enqueue(id)
end
local payloads, bytes = {}, 0
for q = 5, #ARGV do
  for i = 1, tonumber(ARGV[2]) do
    local raw = bytes < tonumber(ARGV[3]) and redis.call('LINDEX', ARGV[q], -i)
    if not raw then break end
    local read = string.sub(raw, 1, tonumber(ARGV[4]))
    bytes = bytes + #read
    payloads[#payloads + 1] = {ARGV[q], redis.sha1hex(raw), #raw, read}
  end
end
local waiting = {}
for _, lane in ipairs({'sdxl', 'wan'}) do
  if redis.call('ZCARD', P .. 'users:' .. lane) > 0 then waiting[#waiting + 1] = lane end
end
local soonest = -1
for _, set in ipairs({'leases', 'delayed', 'outbox'}) do
  local first = redis.call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')
  if first[2] then
    local wait = math.max(0, tonumber(first[2]) - now)
    if soonest < 0 or wait < soonest then soonest = wait end
  end
end
return {waiting, redis.call('ZCOUNT', P .. 'outbox', '-inf', int(now)), soonest, payloads}
`);

/**
 * prefix, queue, callsBack, retentionMs, keptBytes, keptRejected, then seven for each: sha1, kind, id, user, lane, type, text.
 * -> what became of each
 */
export const admitScript = defineScript(`
local queue, results = ARGV[2], {}
for i = 7, #ARGV, 7 do
  local sha1, kind, id, user, lane, kind_of_job, text = unpack(ARGV, i, i + 6)
  local raw = redis.call('LINDEX', queue, -1)
  if not raw or redis.sha1hex(raw) ~= sha1 then break end
  redis.call('RPOP', queue)
  local result = kind == 'job' and 'admitted' or kind
  if kind == 'rejected' then
    redis.call('LPUSH', P .. 'rejected', text)
    redis.call('LTRIM', P .. 'rejected', 0, tonumber(ARGV[6]) - 1)
  elseif redis.call('EXISTS', job(id)) == 1 then
    result = 'duplicate'
    redis.call('HINCRBY', job(id), 'pushed', 1)
    local cb = redis.call('HGET', job(id), 'cb')
    if cb == 'delivered' or cb == 'dead' then call_back(id) end
  else
    local seq = redis.call('INCR', P .. 'seq')
    if #raw > tonumber(ARGV[5]) then raw = '' end
    redis.call('HSET', job(id), 'id', id, 'payload', raw, 'user', user, 'lane', lane, 'type', kind_of_job, 'seq', seq,
      'run', '1', 'attempts', '0', 'pushed', '1', 'calls_back', ARGV[3], 'created_at', int(now))
    redis.call('ZADD', P .. 'jobs', seq, id)
    if kind == 'refused' then
      finish(id, 'failed', text, ARGV[3], ARGV[4])
    else
      enqueue(id)
    end
  end
  results[#results + 1] = result
end
return results
`);
