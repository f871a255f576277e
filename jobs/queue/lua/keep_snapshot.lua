-- Keep the snapshot of a video that its worker still owns.
-- KEYS: record, snapshot. ARGV: worker as JSON, content, seconds to live. Returns 1, or 0 when the worker lost it.
local status, worker = unpack(redis.call('HMGET', KEYS[1], 'status', 'worker'))
if status ~= '"in_progress"' or worker ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
