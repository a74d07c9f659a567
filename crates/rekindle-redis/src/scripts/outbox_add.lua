-- Puts notifications into the outbox. Of each group (a session's) only the oldest is in `due`.
-- KEYS: events, queue, due, attempts, at
-- ARGV: of each notification its id, group, time and text
for i = 1, #ARGV, 4 do
  local id, group, at = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HEXISTS', KEYS[1], id) == 0 then
    redis.call('HSET', KEYS[1], id, group .. ARGV[i + 3])
    redis.call('HSET', KEYS[5], id, at)
    redis.call('ZADD', KEYS[2], 0, group .. id)
    local first = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. group, '[' .. group .. '\255', 'LIMIT', 0, 2)
    if first[1] == group .. id then
      redis.call('ZADD', KEYS[3], at, id)
      if first[2] then
        redis.call('ZREM', KEYS[3], string.sub(first[2], #group + 1))
      end
    end
  end
end
