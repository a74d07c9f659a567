-- Gives a user a session, and the idempotency key that leads to it. Who was about to decide on the user's sessions sees it.
-- KEYS: user, sessions, idempotency key or again the user
-- ARGV: session's id, user's id, idempotency entry or '', milliseconds until it is garbage
redis.call('HSET', KEYS[1], 'rev', ARGV[1], 'id', ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
end
