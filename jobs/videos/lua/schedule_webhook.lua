-- Make the webhook of a video due now.
local function schedule_webhook(receivers_key, receiver_key, receiver, video_id)
  local now = redis.call('TIME')[1]
  redis.call('ZADD', receiver_key, now, video_id)
  redis.call('ZADD', receivers_key, 'LT', now, receiver)
end
