-- Remove a record and its place in the queue.
-- KEYS: as unpacked below, then the other sorted sets that hold the id. ARGV: id, queue, cost.
-- Returns 1, or 0 when there is no record.
local record_key, queue_key, job_key, waiting_key, unfinished_key, in_progress_key, expiring_key, events_key,
  snapshot_key, channel = unpack(KEYS)
local id, queue, cost = unpack(ARGV)
local status = redis.call('HGET', record_key, 'status')
if not status then return 0 end
redis.call('DEL', record_key)
leave_queue(status, queue_key, queue, job_key, waiting_key, id, cost)
redis.call('ZREM', unfinished_key, id)
redis.call('SREM', in_progress_key, id)
redis.call('ZREM', expiring_key, id)
redis.call('DEL', events_key, snapshot_key)
for i = 11, #KEYS do redis.call('ZREM', KEYS[i], id) end
redis.call('PUBLISH', channel, id)
return 1
