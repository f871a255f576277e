-- Write a new record and enqueue its job.
-- KEYS: record, then the sorted sets of ids that it belongs to. ARGV: 1 JSON {job, fields}, then RQ's job fields.
local new = cjson.decode(ARGV[1])
for name, value in pairs(new.fields) do redis.call('HSET', KEYS[1], name, value) end
for i = 2, #KEYS do redis.call('ZADD', KEYS[i], 0, new.job.id) end
enqueue(new.job, false, 2)
