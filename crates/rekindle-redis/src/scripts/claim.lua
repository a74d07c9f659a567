-- Claims an idempotency key for a request of a user; the claim that holds.
-- KEYS: request
-- ARGV: claim (request, expiry, user), now, milliseconds until it is garbage
local known = redis.call('GET', KEYS[1])
if known and tonumber(string.match(known, '^%x+ (%-?%d+)')) > tonumber(ARGV[2]) then
  return known
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]
