-- Change fields of a record, and everything that follows from a change of its state.
-- KEYS: as unpacked below. ARGV: 1 JSON {id, worker (JSON, '' for any), from (states), event, data, totals, receiver
-- ('' for none), queue, cost}, then field, value, ... of the record.
-- Returns the state before, or nil when there is no record or another worker has it.
local record_key, queue_key, job_key, waiting_key, unfinished_key, in_progress_key, expiring_key, events_key,
  snapshot_key, totals_key, receivers_key, receiver_key, channel = unpack(KEYS)
local change = cjson.decode(ARGV[1])
local before, worker = unpack(redis.call('HMGET', record_key, 'status', 'worker'))
if not before or (change.worker ~= '' and change.worker ~= worker) then return false end
local allowed = false
for _, state in ipairs(change.from) do allowed = allowed or before == '"' .. state .. '"' end
if not allowed then return before end
redis.call('HSET', record_key, unpack(ARGV, 2))
for _, total in ipairs(change.totals) do redis.call('HINCRBY', totals_key, total, 1) end
local after = redis.call('HGET', record_key, 'status')
if after == '"in_progress"' and before == '"queued"' then
  redis.call('HINCRBY', record_key, 'attempts', 1)
  redis.call('SADD', in_progress_key, change.id)
end
if after == '"completed"' or after == '"failed"' then
  redis.call('ZREM', unfinished_key, change.id)
  redis.call('SREM', in_progress_key, change.id)
  redis.call('DEL', snapshot_key)
  local expires_at = tonumber(redis.call('HGET', record_key, 'expires_at'))
  if expires_at then redis.call('ZADD', expiring_key, expires_at, change.id) end
  leave_queue(before, queue_key, change.queue, job_key, waiting_key, change.id, change.cost)
end
publish_event(events_key, channel, change.id, change.event, change.data)
if change.receiver ~= '' then schedule_webhook(receivers_key, receiver_key, change.receiver, change.id) end
return before
