-- Remove the job of a video that is over. The job of a video in progress stays for its worker to end, and expires in case
-- the worker has died.
local function leave_queue(status, queue_key, queue, job_key, waiting_key, id, cost)
  if status == '"queued"' and redis.call('LREM', queue_key, 0, id) > 0 then
    redis.call('DEL', job_key)
    redis.call('HINCRBY', waiting_key, queue, -cost)
  else
    redis.call('EXPIRE', job_key, 3600)
  end
end
