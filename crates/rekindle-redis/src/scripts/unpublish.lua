-- Removes entries of the feed that have expired; how many there were, at most so many.
-- KEYS: entries, numbers, expiries
-- ARGV: now, how many
local expired = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, event in ipairs(expired) do
  redis.call('XDEL', KEYS[1], redis.call('HGET', KEYS[2], event) .. '-0')
  redis.call('HDEL', KEYS[2], event)
  redis.call('ZREM', KEYS[3], event)
end
return #expired
