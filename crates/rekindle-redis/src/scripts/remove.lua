-- Removes a row that nobody has written since it was read, with its events. What stays for a while keeps a start that was
-- held up from bringing it back.
-- KEYS: row, events, late
-- ARGV: token, revision that was read, seconds
local row = redis.call('HMGET', KEYS[1], 'rev', 'gone')
if row[2] == ARGV[1] then
  return 1
elseif row[1] ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'gone', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
