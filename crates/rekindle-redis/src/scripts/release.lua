-- Gives an idempotency key back that nothing came of.
-- KEYS: request
-- ARGV: claim
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
