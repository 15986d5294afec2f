-- Counts the waiting jobs of each user.
--
-- KEYS      none
-- ARGV[1]   prefix  prefix of all keys
-- ARGV[2]   most    largest number of users
-- ARGV[3..] for each lane that the caller has:
--           lane    its name
--
-- Returns {user, number} for each user with waiting jobs, most jobs first
--
-- @include lib/base.lua
-- @include lib/waiting-by-user.lua
local most = tonumber(ARGV[2])
local FIRST_ROW = 3

local lines = {}
for user, jobs in pairs(waiting_by_user(FIRST_ROW)) do lines[#lines + 1] = {user, jobs} end
table.sort(lines, function(a, b) return a[2] > b[2] or (a[2] == b[2] and a[1] < b[1]) end)
for i = #lines, most + 1, -1 do lines[i] = nil end
return lines
