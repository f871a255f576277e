-- End an attempt to send a webhook.
-- KEYS: receivers, attempts, webhooks of the receiver. ARGV: receiver, video id, seconds until the next attempt or ''.
-- Only ended attempts count: one that died with its process says nothing about the receiver.
if ARGV[3] ~= '' then
  if redis.call('ZSCORE', KEYS[3], ARGV[2]) then
    redis.call('HINCRBY', KEYS[2], ARGV[2], 1)
    redis.call('ZADD', KEYS[3], redis.call('TIME')[1] + ARGV[3], ARGV[2])
  end
else
  redis.call('HDEL', KEYS[2], ARGV[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
end
update_receiver(KEYS[1], KEYS[3], ARGV[1])
