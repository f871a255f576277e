-- Put a new job on a queue: at the back, or at the front behind the older ones there (video ids sort by age).
-- `job`: queue_key, queue, job_key, id, cost, virtual_times_key ('' for a queue outside the fair share), queues_key,
-- waiting_key. `first_field`: index in ARGV of the fields of RQ's job, which are binary.
local function enqueue(job, at_front, first_field)
  redis.call('DEL', job.job_key)
  redis.call('HSET', job.job_key, unpack(ARGV, first_field))
  redis.call('SADD', job.queues_key, job.queue_key)
  local before, last_older
  if at_front then
    for _, other in ipairs(redis.call('LRANGE', job.queue_key, 0, 999)) do
      if other > job.id then before = other break end
      last_older = other
    end
  end
  if before then redis.call('LINSERT', job.queue_key, 'BEFORE', before, job.id)
  elseif last_older then redis.call('LINSERT', job.queue_key, 'AFTER', last_older, job.id)
  else redis.call('RPUSH', job.queue_key, job.id) end
  redis.call('HINCRBY', job.waiting_key, job.queue, job.cost)
  if job.virtual_times_key ~= '' then redis.call('ZADD', job.virtual_times_key, 'NX', 0, job.queue) end
end
