-- Takes notifications that are due: of the first thousand, those with the smallest ids.
-- KEYS: events, queue, due, attempts, at
-- ARGV: now, lease, how many
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, 1000)
table.sort(due)
local taken = {}
for i = 1, math.min(#due, tonumber(ARGV[3])) do
  local id = due[i]
  redis.call('HSET', KEYS[5], id, ARGV[2])
  redis.call('ZADD', KEYS[3], ARGV[2], id)
  taken[#taken + 1] = { redis.call('HINCRBY', KEYS[4], id, 1), redis.call('HGET', KEYS[1], id) }
end
return taken
