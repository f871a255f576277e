-- Correct the waiting cost of one queue: the sum of the costs of the videos in it.
-- KEYS: waiting costs, queue. ARGV: queue name, key prefix of a record. Returns 1 when the count was wrong.
local sum = 0
local ids = redis.call('LRANGE', KEYS[2], 0, -1)
for _, id in ipairs(ids) do sum = sum + tonumber(redis.call('HGET', ARGV[2] .. id, 'cost') or '0') end
local counted = redis.call('HGET', KEYS[1], ARGV[1])
if not ids[1] then return redis.call('HDEL', KEYS[1], ARGV[1]) > 0 and counted ~= '0' and 1 or 0 end
if tonumber(counted or '0') == sum then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', sum))
return 1
