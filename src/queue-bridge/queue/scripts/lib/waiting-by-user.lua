-- Included by scripts that count waiting jobs.

-- The number of waiting jobs of each user, over the lanes that are known to the store and those from an argument on: jobs that came
-- before there was the set of lanes are in lanes that the caller has.
local function waiting_by_user(first_lane)
  local lanes, waiting = {}, {}
  for _, lane in ipairs(redis.call('SMEMBERS', prefix .. 'lanes')) do lanes[lane] = true end
  for i = first_lane, #ARGV do lanes[ARGV[i]] = true end
  for lane in pairs(lanes) do
    for _, user in ipairs(redis.call('ZRANGE', prefix .. 'users:' .. lane, 0, -1)) do
      waiting[user] = (waiting[user] or 0) + redis.call('ZCARD', prefix .. 'line:' .. lane .. ':' .. user)
    end
  end
  return waiting
end
