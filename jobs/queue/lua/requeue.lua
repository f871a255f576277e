-- Queue a video again, at the front of its queue: one in progress whose worker returned or lost it, or a queued one
-- whose job is missing. Its cost is counted in the same step, so workers that do this at once count it once.
-- KEYS: record, in progress, events, channel. ARGV: 1 JSON {job, from (state), worker (JSON, '' for any), used_attempt,
-- fields}, then RQ's job fields. Returns 1 when the video was queued.
local record_key, in_progress_key, events_key, channel = unpack(KEYS)
local again = cjson.decode(ARGV[1])
local job = again.job
local status, worker = unpack(redis.call('HMGET', record_key, 'status', 'worker'))
if status ~= '"' .. again.from .. '"' or (again.worker ~= '' and again.worker ~= worker) then return 0 end
if again.from == 'queued' then
  if redis.call('LPOS', job.queue_key, job.id) then return 0 end
else
  -- RQ's own clean-up may have queued the abandoned job already; it counts no cost.
  redis.call('LREM', job.queue_key, 0, job.id)
  for name, value in pairs(again.fields) do redis.call('HSET', record_key, name, value) end
  if not again.used_attempt then redis.call('HINCRBY', record_key, 'attempts', -1) end
  redis.call('SREM', in_progress_key, job.id)
  publish_event(events_key, channel, job.id, 'queued', '{}')
end
enqueue(job, true, 2)
return 1
