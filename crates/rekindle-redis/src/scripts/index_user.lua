-- Adds a user to its scope's index, and counts that, so that no removal under way undoes it.
-- KEYS: users, added
-- ARGV: user's id
redis.call('ZADD', KEYS[1], 0, ARGV[1])
redis.call('INCR', KEYS[2])
