-- Forget a queue that is empty and has no jobs in any registry.
-- KEYS: set of queues, queue, registries of the queue ... Returns 1 when the queue was forgotten.
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
return redis.call('SREM', KEYS[1], KEYS[2])
