-- Stores the progress of a job and publishes it where publishes is '1'. Both are best effort: a user without channel rights, or a
-- store without memory, must not cost the job its lease.
local function write_progress(id, progress, progress_ms, publishes)
  redis.pcall('SET', prefix .. 'progress:' .. id, progress, 'PX', progress_ms)
  if publishes == '1' then redis.pcall('PUBLISH', prefix .. 'progress:' .. id, progress) end
end
