-- Takes a removed session from its user; whether the user has others.
-- KEYS: user, sessions, starts
-- ARGV: session's id
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('EXISTS', KEYS[2])
