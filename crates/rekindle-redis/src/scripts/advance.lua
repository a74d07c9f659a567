-- Moves a session to its next generation if it is where the intent says. Answers whether it did, and the row.
-- KEYS: row, events, late
-- ARGV: token, scope and tag, position, now, next position, next issue, idle expiry, auth or '', least generation,
--       event's stream id, bytes and text, effects or ''
local row = redis.call('HMGET', KEYS[1], unpack(fields))
local now = tonumber(ARGV[4])
if row[REV] == ARGV[1] then
  return { 1, row }
elseif row[OF] ~= ARGV[2] or row[POSITION] ~= ARGV[3] or row[ENDED]
  or tonumber(row[IDLE]) <= now or tonumber(row[EXPIRES]) <= now then
  return { 0, row }
end
local set = {}
local function put(field, value)
  row[field] = value
  set[#set + 1] = fields[field]
  set[#set + 1] = value
end
if row[CONFIRMED] ~= '0' and (row[POSITION] ~= ARGV[5] or row[ISSUED] ~= ARGV[6]) then
  put(CONFIRMED, '0')
end
put(REV, ARGV[1])
put(POSITION, ARGV[5])
put(ISSUED, ARGV[6])
put(IDLE, tonumber(ARGV[7]) < tonumber(row[EXPIRES]) and ARGV[7] or row[EXPIRES])
if ARGV[8] ~= '' then
  put(AUTH, ARGV[8])
  put(LEAST, ARGV[9])
end
if ARGV[13] ~= '' then
  put(OUT, (row[OUT] or '') .. ARGV[13])
end
redis.call('HSET', KEYS[1], unpack(set))
journal(KEYS[2], KEYS[3], ARGV[10], ARGV[11], ARGV[12])
return { 1, row }
