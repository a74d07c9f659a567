-- Changes the configuration if nobody has since it was read.
-- KEYS: current, versions, audit
-- ARGV: token, version that was read, audit entry or '', number of fields to set, fields and values,
--       number of fields to remove, fields, then the same of definition versions
local now = redis.call('HMGET', KEYS[1], 'rev', 'version')
if now[1] == ARGV[1] then
  return 1
elseif now[2] ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'rev', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'version', 1)
local i = 4
for k = 1, 2 do
  local last = i + 2 * tonumber(ARGV[i])
  for f = i + 1, last, 2 do
    redis.call('HSET', KEYS[k], ARGV[f], ARGV[f + 1])
  end
  i = last + 1
  last = i + tonumber(ARGV[i])
  for f = i + 1, last do
    redis.call('HDEL', KEYS[k], ARGV[f])
  end
  i = last + 1
end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[3], 0, ARGV[3])
end
return 1
