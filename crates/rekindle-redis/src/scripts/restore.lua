-- Puts entries into the feed under numbers that they had elsewhere; each goes by its number, as its event is not known. The
-- stream takes only numbers after its last: for others, and in place of others, it is written anew.
-- KEYS: entries, numbers, expiries, last
-- ARGV: of each entry, in their order, its number, expiry and text
-- As text: a number of Lua's would lose digits.
local function before(a, b)
  return #a < #b or (#a == #b and a < b)
end
local texts, behind = {}, {}
for i = 1, #ARGV, 3 do
  local seq, text = ARGV[i], ARGV[i + 2]
  local there = redis.call('XRANGE', KEYS[1], seq .. '-0', seq .. '-0')[1]
  if not there or there[2][2] ~= text then
    texts[seq] = text
    if type(redis.pcall('XADD', KEYS[1], seq .. '-0', 'entry', text)) == 'table' then
      behind[#behind + 1] = seq
    end
  end
end
if #behind > 0 then
  local there = {}
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
    there[string.sub(entry[1], 1, -3)] = entry[2][2]
  end
  for _, seq in ipairs(behind) do
    there[seq] = texts[seq]
  end
  local order = {}
  for seq in pairs(there) do
    order[#order + 1] = seq
  end
  table.sort(order, before)
  redis.call('DEL', KEYS[1])
  for _, seq in ipairs(order) do
    redis.call('XADD', KEYS[1], seq .. '-0', 'entry', there[seq])
  end
  -- Names of entries that are replaced, or not there any more, would take the new ones away when they expire.
  local names = redis.call('HGETALL', KEYS[2])
  for i = 1, #names, 2 do
    if texts[names[i + 1]] or not there[names[i + 1]] then
      redis.call('HDEL', KEYS[2], names[i])
      redis.call('ZREM', KEYS[3], names[i])
    end
  end
end
for i = 1, #ARGV, 3 do
  local seq = ARGV[i]
  if texts[seq] then
    redis.call('HSET', KEYS[2], seq, seq)
    redis.call('ZADD', KEYS[3], ARGV[i + 1], seq)
  end
  local last = redis.call('GET', KEYS[4])
  if not last or before(last, seq) then
    redis.call('SET', KEYS[4], seq)
  end
end
