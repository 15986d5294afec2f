-- Stores the progress of a job and publishes it where publishes is '1'.
local function write_progress(id, progress, progress_ms, publishes)
  redis.call('SET', prefix .. 'progress:' .. id, progress, 'PX', progress_ms)
  if publishes == '1' then redis.call('PUBLISH', prefix .. 'progress:' .. id, progress) end
end
