-- Requeues jobs whose lease has expired or whose delay is over, and returns the work that waits.
--
-- KEYS[1..]  the producers' lists
-- ARGV[1]    prefix          prefix of all other keys
-- ARGV[2]    max_payloads    largest number of payloads to return from each list
-- ARGV[3]    max_bytes       no further payload is returned once the payloads have this many bytes together
-- ARGV[4]    max_read_bytes  a longer payload is cut off after this many bytes
-- ARGV[5]    expiry          text that the journal keeps of an expired lease
-- ARGV[6]    reap_from       expired leases end from this time on,
-- ARGV[7]    reap_until      and until this time: a later poll was on its way while the store was away
-- ARGV[8]    grace_ms        expired leases do not end in this time after a start of the store; 0: they do
-- ARGV[9..]  for each lane that the caller has:
--            lane            its name
--
-- Returns {lanes, due, next_due_ms, payloads, due_usage, strays, now}
--   lanes        those of the caller's lanes in which a job waits
--   due          number of callbacks that are due
--   next_due_ms  time until a lease expires, a delay ends or a callback is due, or the next usage record becomes due; -1: there is
--                none
--   payloads     {list, sha1, bytes, text} of each payload, in the order in which they were pushed
--   due_usage    number of usage records that are due
--   strays       "<server> <id there>" of runs to cancel on their servers, oldest first
--   now          time of the store
--
-- @include lib/base.lua
-- @include lib/enqueue.lua
local max_payloads, max_bytes, max_read_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local expiry, reap_from, reap_until, grace_ms = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local FIRST_ROW = 9
-- A server that no bridge has reached for a day is gone.
local STRAY_MS = 24 * 60 * 60 * 1000

-- True if the store has started within the grace. A user without the right to INFO does not learn it.
local function has_just_started()
  if grace_ms == 0 then return false end
  local info = redis.pcall('INFO', 'server')
  local uptime_s = type(info) == 'string' and tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  return uptime_s and uptime_s * 1000 < grace_ms
end

local expired = {}
if reap_from <= now and now <= reap_until then
  expired = redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', int(now), 'LIMIT', 0, 100)
  if #expired > 0 and has_just_started() then expired = {} end
end
for _, id in ipairs(expired) do
  redis.call('ZREM', prefix .. 'leases', id)
  redis.call('HSET', job(id), 'last_error', expiry)
  enqueue(id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'delayed', '-inf', int(now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', prefix .. 'delayed', id)
  enqueue(id)
end

local payloads, bytes = {}, 0
for _, list in ipairs(KEYS) do
  for i = 1, max_payloads do
    local raw = bytes < max_bytes and redis.call('LINDEX', list, -i)
    if not raw then break end
    local text = string.sub(raw, 1, max_read_bytes)
    bytes = bytes + #text
    payloads[#payloads + 1] = {list, redis.sha1hex(raw), #raw, text}
  end
end

local waiting = {}
for i = FIRST_ROW, #ARGV do
  local lane = ARGV[i]
  if redis.call('ZCARD', prefix .. 'users:' .. lane) > 0 then waiting[#waiting + 1] = lane end
end

local next_due_ms = -1
for _, set in ipairs({'leases', 'delayed', 'outbox'}) do
  -- Expired leases that did not end wait for their workers.
  local earliest = set == 'leases' and '(' .. int(now) or '-inf'
  local _, due_at = unpack(redis.call('ZRANGEBYSCORE', prefix .. set, earliest, '+inf', 'WITHSCORES', 'LIMIT', 0, 1))
  if due_at then
    local wait = math.max(0, tonumber(due_at) - now)
    if next_due_ms < 0 or wait < next_due_ms then next_due_ms = wait end
  end
end
-- Usage records that are due already do not count: they may wait for their receiver, and callbacks must not.
local _, usage_at = unpack(redis.call('ZRANGEBYSCORE', prefix .. 'usage', '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1))
if usage_at then
  local wait = tonumber(usage_at) - now
  if next_due_ms < 0 or wait < next_due_ms then next_due_ms = wait end
end
local function due(set) return redis.call('ZCOUNT', prefix .. set, '-inf', int(now)) end
redis.call('ZREMRANGEBYSCORE', prefix .. 'strays', '-inf', int(now - STRAY_MS))
local strays = redis.call('ZRANGE', prefix .. 'strays', 0, 99)
return {waiting, due('outbox'), next_due_ms, payloads, due('usage'), strays, now}
