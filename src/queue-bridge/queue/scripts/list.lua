-- Lists journals, newest first.
--
-- KEYS     none
-- ARGV[1]  prefix  prefix of all keys
-- ARGV[2]  most    largest number of journals
-- ARGV[3]  state   only jobs in this state; empty: all
--
-- Returns the journals, each as field, value, field, value
--
-- @include lib/base.lua
local most, wanted = tonumber(ARGV[2]), ARGV[3]

-- Few jobs are in these states, and they have sets of their own: the others need not be looked at.
local sets = {leased = 'leases', delayed = 'delayed'}

local function newest_first(set)
  local ids, arrivals = redis.call('ZRANGE', prefix .. set, 0, -1), {}
  for _, id in ipairs(ids) do arrivals[id] = tonumber(redis.call('ZSCORE', prefix .. 'jobs', id) or '0') end
  table.sort(ids, function(a, b) return arrivals[a] > arrivals[b] end)
  return ids
end

local found = {}
for _, id in ipairs(sets[wanted] and newest_first(sets[wanted]) or redis.call('ZREVRANGE', prefix .. 'jobs', 0, 99999)) do
  local state = redis.call('HGET', job(id), 'state')
  if not state then
    redis.call('ZREM', prefix .. 'jobs', id)
  elseif wanted == '' or wanted == state then
    found[#found + 1] = redis.call('HGETALL', job(id))
    if #found >= most then break end
  end
end
return found
