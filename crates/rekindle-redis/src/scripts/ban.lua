-- Bans a user; from here on no start is noted.
-- KEYS: user
-- ARGV: token, user's id, ban, its end or '', effects or ''
local set = { 'rev', ARGV[1], 'id', ARGV[2], 'ban', ARGV[3], 'until', ARGV[4] }
if ARGV[5] ~= '' and redis.call('HGET', KEYS[1], 'rev') ~= ARGV[1] then
  set[9] = 'out'
  set[10] = (redis.call('HGET', KEYS[1], 'out') or '') .. ARGV[5]
end
redis.call('HSET', KEYS[1], unpack(set))
