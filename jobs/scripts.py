"""The scripts by which the store changes a record and, in the same step, all that follows from the change: its place in
the queue, the sets of ids, the metrics, and what is told to those who follow the video.

KEYS of both: 1 record, 2 queue, 3 job, 4 costs of what waits, 5 unfinished, 6 running, 7 expiring, 8 events, 9 its
snapshot.
ARGV of both: 1 id, 2 name of the queue, 3 cost.
"""

from jobs.events import BELL, TELL
from jobs.webhooks import TELL_RECEIVER

# A job's hash goes only when the job was still waiting: one that a worker has taken is that worker's to end.
_LEAVE_QUEUE = """
local function leave_queue()
  if redis.call('LREM', KEYS[2], 0, ARGV[1]) == 0 then return end
  redis.call('DEL', KEYS[3])
  redis.call('HINCRBY', KEYS[4], ARGV[2], -ARGV[3])
end
"""

# More KEYS: 10 totals of the metrics, 11 receivers of webhooks, 12 the line of this one's. More ARGV: 4 worker or "", 5
# the states to change from, 6 the event's name, 7 its data, 8 the totals that count the change, 9 the receiver that is
# to be told or "", then field, value, ...
# Answers the state before, or nothing when there is no record or it has another worker.
CHANGE = f"""{TELL}{TELL_RECEIVER}{_LEAVE_QUEUE}
local status, worker = unpack(redis.call('HMGET', KEYS[1], 'status', 'worker'))
if not status or (ARGV[4] ~= '' and ARGV[4] ~= worker) then return false end
if not string.find(ARGV[5], status, 1, true) then return status end
redis.call('HSET', KEYS[1], unpack(ARGV, 10))
for _, total in ipairs(cjson.decode(ARGV[8])) do redis.call('HINCRBY', KEYS[10], total, 1) end
local after = redis.call('HGET', KEYS[1], 'status')
if after == '"in_progress"' and status == '"queued"' then
  redis.call('HINCRBY', KEYS[1], 'attempts', 1)
  redis.call('SADD', KEYS[6], ARGV[1])
end
if after == '"completed"' or after == '"failed"' then
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('SREM', KEYS[6], ARGV[1])
  redis.call('DEL', KEYS[9])
  local expires = tonumber(redis.call('HGET', KEYS[1], 'expires_at'))
  if expires then redis.call('ZADD', KEYS[7], expires, ARGV[1]) end
end
if after == '"failed"' then leave_queue() end
tell(KEYS[8], ARGV[1], ARGV[6], ARGV[7])
if ARGV[9] ~= '' then tell_receiver(KEYS[11], KEYS[12], ARGV[9], ARGV[1]) end
return status
"""

# More KEYS: from 10 on, the other sets that hold the id. Answers 1, or 0 when there is no record.
DELETE = f"""{_LEAVE_QUEUE}
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
leave_queue()
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('SREM', KEYS[6], ARGV[1])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('DEL', KEYS[8], KEYS[9])
for i = 10, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('PUBLISH', '{BELL}', ARGV[1])
return 1
"""

# KEYS: 1 record, 2 snapshot. ARGV: 1 worker, 2 content, 3 seconds to live. Answers 1, or 0 when the video is not this
# worker's any more.
KEEP_SNAPSHOT = """
local status, worker = unpack(redis.call('HMGET', KEYS[1], 'status', 'worker'))
if status ~= '"in_progress"' or worker ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
"""
