-- Takes payloads from the tail of a list, as long as they are still there, and makes jobs of them.
--
-- KEYS[1]   the producers' list
-- ARGV[1]   prefix             prefix of all other keys
-- ARGV[2]   calls_back         1: ends and starts are called back
-- ARGV[3]   retention_ms       time that an ended job is kept
-- ARGV[4]   max_payload_bytes  a longer payload is not kept in the journal
-- ARGV[5]   max_rejected       number of rejected payloads that are kept
-- ARGV[6..] for each payload, in the order in which they were pushed:
--           sha1   of the whole payload
--           kind   job, refused (it has an id, but cannot be run) or rejected (it has no usable id)
--           id     of the job; empty for rejected
--           user   of the job
--           lane   of the job
--           type   its job type
--           text   refused: body of its callback; rejected: record of it
--           traceparent  of its payload; empty: it has none
--
-- Returns what became of each payload: admitted, duplicate, refused or rejected. The result is shorter than the input if another
-- bridge took the remaining ones.
--
-- @include lib/base.lua
-- @include lib/enqueue.lua
-- @include lib/end-job.lua
local list = KEYS[1]
local calls_back, retention_ms = ARGV[2], ARGV[3]
local max_payload_bytes, max_rejected = tonumber(ARGV[4]), tonumber(ARGV[5])
local FIRST_ROW, COLUMNS = 6, 8

local results = {}
for i = FIRST_ROW, #ARGV, COLUMNS do
  local sha1, kind, id, user, lane, job_type, text, traceparent = unpack(ARGV, i, i + COLUMNS - 1)
  local raw = redis.call('LINDEX', list, -1)
  if not raw or redis.sha1hex(raw) ~= sha1 then break end
  redis.call('RPOP', list)
  local result = kind == 'job' and 'admitted' or kind
  if kind == 'rejected' then
    redis.call('LPUSH', prefix .. 'rejected', text)
    redis.call('LTRIM', prefix .. 'rejected', 0, max_rejected - 1)
  elseif redis.call('EXISTS', job(id)) == 1 then
    result = 'duplicate'
    redis.call('HINCRBY', job(id), 'pushed', 1)
    local callback = redis.call('HGET', job(id), 'cb')
    if callback == 'delivered' or callback == 'dead' then call_back(id) end
  else
    local seq = redis.call('INCR', prefix .. 'seq')
    if #raw > max_payload_bytes then raw = '' end
    redis.call('HSET', job(id), 'id', id, 'payload', raw, 'user', user, 'lane', lane, 'type', job_type, 'seq', seq,
      'run', '1', 'attempts', '0', 'pushed', '1', 'calls_back', calls_back, 'created_at', int(now))
    if traceparent ~= '' then redis.call('HSET', job(id), 'traceparent', traceparent) end
    redis.call('ZADD', prefix .. 'jobs', seq, id)
    if kind == 'refused' then
      end_job(id, 'failed', text, calls_back, retention_ms)
    else
      enqueue(id)
    end
  end
  results[#results + 1] = result
end
return results
