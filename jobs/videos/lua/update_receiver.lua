-- A receiver is due when the first of its webhooks is. Without webhooks it is removed.
local function update_receiver(receivers_key, receiver_key, receiver)
  local first = redis.call('ZRANGE', receiver_key, 0, 0, 'WITHSCORES')
  if first[1] then redis.call('ZADD', receivers_key, first[2], receiver)
  else redis.call('ZREM', receivers_key, receiver) end
end
