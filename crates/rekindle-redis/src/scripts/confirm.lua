-- Marks a generation as confirmed.
-- KEYS: row
-- ARGV: token, beginning of scope and tag, beginning of the position
local row = redis.call('HMGET', KEYS[1], 'of', 'position', 'ended', 'confirmed')
if row[1] and string.sub(row[1], 1, #ARGV[2]) == ARGV[2] and string.sub(row[2], 1, #ARGV[3]) == ARGV[3]
  and not row[3] and row[4] ~= '1' then
  redis.call('HSET', KEYS[1], 'confirmed', '1', 'rev', ARGV[1])
end
