-- Take a token from a bucket that holds a minute's tokens and fills in a minute, by Redis's clock.
-- KEYS: bucket. ARGV: tokens a minute. Returns the milliseconds until the next token, 0 when one was taken, and the
-- whole tokens that are left.
local capacity = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(kept[1]) or capacity
tokens = math.min(capacity, tokens + math.max(0, now - (tonumber(kept[2]) or now)) * capacity / 60000)
if tokens < 1 then return {math.ceil((1 - tokens) * 60000 / capacity), 0} end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - 1), 'at', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return {0, math.floor(tokens - 1)}
