-- Take a video out of quarantine. One that waits moves to the front of its own queue.
-- KEYS: record, quarantine queue. ARGV: 1 JSON {job, group (JSON), quarantine_queue, fields}, then RQ's job fields.
-- Returns 1, or 0 when the video is no longer in this group.
local record_key, queue_key = unpack(KEYS)
local clear = cjson.decode(ARGV[1])
if redis.call('HGET', record_key, 'quarantine') ~= clear.group then return 0 end
for name, value in pairs(clear.fields) do redis.call('HSET', record_key, name, value) end
if redis.call('LREM', queue_key, 0, clear.job.id) > 0 then
  redis.call('HINCRBY', clear.job.waiting_key, clear.quarantine_queue, -clear.job.cost)
  enqueue(clear.job, true, 2)
end
return 1
