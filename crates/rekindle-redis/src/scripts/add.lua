-- Adds members to a set that sorts them by their bytes.
-- KEYS: the set
-- ARGV: members
for i = 1, #ARGV do
  redis.call('ZADD', KEYS[1], 0, ARGV[i])
end
