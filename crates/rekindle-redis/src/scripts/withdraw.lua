-- Removes entries of the feed.
-- KEYS: entries, numbers, expiries
-- ARGV: numbers
local removed = {}
for _, seq in ipairs(ARGV) do
  redis.call('XDEL', KEYS[1], seq .. '-0')
  removed[seq] = true
end
local names = redis.call('HGETALL', KEYS[2])
for i = 1, #names, 2 do
  if removed[names[i + 1]] then
    redis.call('HDEL', KEYS[2], names[i])
    redis.call('ZREM', KEYS[3], names[i])
  end
end
