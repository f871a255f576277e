-- Find the queue to serve next: the one with the least virtual time that has a job waiting.
-- KEYS: virtual times of the queues, system virtual times, waiting costs. ARGV: field of the system virtual time, key
-- prefix of a queue. Returns queue name, id of the job at its head, virtual time.
-- Forgets empty queues on the way: by then every other queue has been charged at least as much.
local system_time = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
while true do
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if not first[1] then return false end
  local head = redis.call('LINDEX', ARGV[2] .. first[1], 0)
  if head then return {first[1], head, string.format('%.0f', math.max(tonumber(first[2]), system_time))} end
  redis.call('ZREM', KEYS[1], first[1])
  redis.call('HDEL', KEYS[3], first[1])
end
