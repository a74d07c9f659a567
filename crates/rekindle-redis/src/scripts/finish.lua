-- Forgets a start that is complete.
-- KEYS: user, sessions, starts, idempotency key or again the user
-- ARGV: session's id, what to forget (the note; the session, too; or all, with the idempotency key), idempotency entry or ''
redis.call('HDEL', KEYS[3], ARGV[1])
if ARGV[2] ~= 'note' then
  redis.call('ZREM', KEYS[2], ARGV[1])
end
if ARGV[2] == 'all' and ARGV[3] ~= '' and redis.call('GET', KEYS[4]) == ARGV[3] then
  redis.call('DEL', KEYS[4])
end
