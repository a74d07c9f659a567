-- Forgets effects that were carried out, if they are still the first ones.
-- KEYS: row or user
-- ARGV: effects
local out = redis.call('HGET', KEYS[1], 'out')
if out and string.sub(out, 1, #ARGV[1]) == ARGV[1] then
  if #out == #ARGV[1] then
    redis.call('HDEL', KEYS[1], 'out')
  else
    redis.call('HSET', KEYS[1], 'out', string.sub(out, #ARGV[1] + 1))
  end
end
