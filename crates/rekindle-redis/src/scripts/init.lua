-- Gives an empty keyspace its first contents; the layout's number. Writes in any case, to see whether that can be done.
-- KEYS: current, versions
-- ARGV: layout, number of fields, fields and values, then those of definition versions
local layout = redis.call('HGET', KEYS[1], 'layout')
if layout then
  if layout == ARGV[1] then
    redis.call('HSET', KEYS[1], 'layout', layout)
  end
  return layout
end
redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'version', '1')
local last = 2 + 2 * tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[i <= last and 1 or 2], ARGV[i], ARGV[i + 1])
end
return ARGV[1]
