-- Writes a row in place of whatever is there.
-- KEYS: row
-- ARGV: fields and values
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV))
