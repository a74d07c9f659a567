-- Lifts a ban, whichever or only one that is over at a time; whether there was one.
-- KEYS: user
-- ARGV: token, time or ''
local user = redis.call('HMGET', KEYS[1], 'rev', 'until')
if user[1] == ARGV[1] then
  return 1
elseif not user[2] or (ARGV[2] ~= '' and (user[2] == '' or tonumber(user[2]) > tonumber(ARGV[2]))) then
  return 0
end
redis.call('HDEL', KEYS[1], 'ban', 'until')
redis.call('HSET', KEYS[1], 'rev', ARGV[1])
return 1
