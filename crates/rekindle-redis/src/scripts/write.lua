-- Writes a row that nobody has written since it was read. Answers whether it did; if not, with the row as it is.
-- KEYS: row, events, late
-- ARGV: token, revision that was read ('': there is no row; '*': any row), effects or '',
--       number of fields to set, fields and values, number of fields to remove, fields,
--       and of each event its stream id, bytes and text
local revision = redis.call('HGET', KEYS[1], 'rev')
if revision == ARGV[1] then
  return { 1, {} }
end
local expected
if ARGV[2] == '' then
  expected = redis.call('EXISTS', KEYS[1]) == 0
elseif ARGV[2] == '*' then
  expected = revision
else
  expected = revision == ARGV[2]
end
if not expected then
  return { 0, read() }
end
local set = { 'rev', ARGV[1] }
if ARGV[3] ~= '' then
  set[3] = 'out'
  set[4] = (redis.call('HGET', KEYS[1], 'out') or '') .. ARGV[3]
end
local i = 5
for _ = 1, 2 * tonumber(ARGV[4]) do
  set[#set + 1] = ARGV[i]
  i = i + 1
end
redis.call('HSET', KEYS[1], unpack(set))
local removed = tonumber(ARGV[i])
for _ = 1, removed do
  i = i + 1
  redis.call('HDEL', KEYS[1], ARGV[i])
end
for e = i + 1, #ARGV, 3 do
  journal(KEYS[2], KEYS[3], ARGV[e], ARGV[e + 1], ARGV[e + 2])
end
return { 1, {} }
