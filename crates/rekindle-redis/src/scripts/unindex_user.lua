-- Removes a user from its scope's index unless one was added since.
-- KEYS: users, added
-- ARGV: user's id, count before it was seen that nothing of the user is left
if (redis.call('GET', KEYS[2]) or '0') == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
