-- Add what a process has counted since its last publication to the totals of the deployment.
-- KEYS: totals, published by this process. ARGV: seconds to keep the latter, then sample, value, ...
for i = 2, #ARGV, 2 do
  local change = tonumber(ARGV[i + 1]) - tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or '0')
  if change ~= 0 then
    redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], string.format('%.17g', change))
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
