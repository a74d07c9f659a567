-- Removes a notification, and lets the next of its group be taken; or puts it back.
-- KEYS: events, queue, due, attempts, at
-- ARGV: id, when to take it again or '', length of a group
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then
  return
end
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
  if redis.call('ZSCORE', KEYS[3], ARGV[1]) then
    redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
  end
  return
end
local group = string.sub(text, 1, tonumber(ARGV[3]))
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[2], group .. ARGV[1])
if redis.call('ZREM', KEYS[3], ARGV[1]) == 1 then
  local first = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. group, '[' .. group .. '\255', 'LIMIT', 0, 1)[1]
  if first then
    local id = string.sub(first, #group + 1)
    redis.call('ZADD', KEYS[3], redis.call('HGET', KEYS[5], id), id)
  end
end
