-- Take webhooks that are due, and make them due again after the time that the caller has to send them.
-- KEYS: receivers, attempts.
-- ARGV: 1 limit, 2 limit for each receiver, 3 limit for each owner, 4 seconds until they are due again, 5 key prefix of a
-- receiver's webhooks, then receiver, count, ...: how many webhooks of a receiver the caller is sending already.
-- Returns receiver, video id, attempt, ...
local now = tonumber(redis.call('TIME')[1])
local left, sending, sending_of_owner, taken = tonumber(ARGV[1]), {}, {}, {}
local function owner_of(receiver) return string.match(receiver, '^([^@]*)@') or '' end
local function count(receiver, number)
  local owner = owner_of(receiver)
  sending[receiver] = (sending[receiver] or 0) + number
  sending_of_owner[owner] = (sending_of_owner[owner] or 0) + number
end
for i = 6, #ARGV, 2 do count(ARGV[i], tonumber(ARGV[i + 1])) end
-- All of them: the first ones may be of owners that have reached their limit.
for _, receiver in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE')) do
  local free = math.min(left, ARGV[2] - (sending[receiver] or 0), ARGV[3] - (sending_of_owner[owner_of(receiver)] or 0))
  if free > 0 then
    local receiver_key = ARGV[5] .. receiver
    for _, id in ipairs(redis.call('ZRANGE', receiver_key, '-inf', now, 'BYSCORE', 'LIMIT', 0, free)) do
      redis.call('ZADD', receiver_key, now + ARGV[4], id)
      local attempt = tonumber(redis.call('HGET', KEYS[2], id) or '0') + 1
      for _, part in ipairs({receiver, id, attempt}) do table.insert(taken, part) end
      left = left - 1
      count(receiver, 1)
    end
    update_receiver(KEYS[1], receiver_key, receiver)
  end
  if left == 0 then break end
end
return taken
