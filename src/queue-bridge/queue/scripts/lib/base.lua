-- Included by every script: the prefix, Redis' clock, and the key of a journal.
--
-- Keys, all under the prefix:
--
--   job:<id>             hash: the journal of a job (journal-fields.ts lists its fields)
--   jobs                 sorted set: ids by order of arrival
--   lanes                set: every lane that has had a job
--   line:<lane>:<user>   sorted set: waiting ids of a user by order of arrival
--   users:<lane>         sorted set: users with waiting jobs by turn; the lowest is next
--   kept:<lane>          sorted set: waiting ids that a server may have, by order of arrival; ids that wait no more may be left in it
--   passes               hash: progress of each lane, for its share
--   seq, turn            counters: arrivals, turns
--   leases, delayed      sorted sets: ids by deadline
--   outbox               sorted set: ids by the time when a callback is due
--   outbox-since         sorted set: the same ids by the time since when it is due
--   usage, usage-since   sorted sets: the same for usage records, by <id>:<run>
--   usage:<id>:<run>     hash: a usage record that is not delivered: id, run, body, traceparent, attempts, since, token, error
--   strays               sorted set: "<server> <id there>" of runs that a server may still have of a job that was cancelled while it waited
--   claim:<token>        the id that a claim got, for a claim whose answer was lost
--   cancel:<id>          set by a program that wants the job cancelled
--   progress:<id>        JSON; also a channel
--   dead, dead-callbacks sorted sets: ids by the time when they were given up
--   dead-usage           sorted set: <id>:<run> of usage records by the time when they were given up
--   rejected             list: JSON records of payloads without a usable id
--
-- The scripts compute these keys, so a Redis Cluster, which spreads keys over nodes, cannot run them.
local prefix = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- A whole number as text; Lua would write large ones as 1.7e+12.
local function int(n) return string.format('%.0f', n) end

local function job(id) return prefix .. 'job:' .. id end

-- True if the token is that of the job's current lease.
local function owns(id, token) return redis.call('HGET', job(id), 'token') == token end
