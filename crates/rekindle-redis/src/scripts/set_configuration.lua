-- Replaces the configuration. Its version grows, at least to a given one.
-- KEYS: current, versions
-- ARGV: token, least version, number of fields, fields and values, then those of definition versions
local rev, layout = unpack(redis.call('HMGET', KEYS[1], 'rev', 'layout'))
if rev == ARGV[1] then
  return
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
-- As text: a number of Lua's would lose digits.
local version, least = redis.call('HGET', KEYS[1], 'version'), ARGV[2]
if #least > #version or (#least == #version and least > version) then
  version = least
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'layout', layout, 'rev', ARGV[1], 'version', version)
local last = 3 + 2 * tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[i <= last and 1 or 2], ARGV[i], ARGV[i + 1])
end
