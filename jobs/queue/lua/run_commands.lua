-- Run commands in one step, even when Redis has reached its memory limit.
-- ARGV: number of arguments of the first command, the command and its arguments, then the same of the next, ...
-- Returns the reply to each.
local replies, position = {}, 1
while position <= #ARGV do
  local last = position + tonumber(ARGV[position])
  replies[#replies + 1] = redis.call(unpack(ARGV, position + 1, last))
  position = last + 1
end
return replies
