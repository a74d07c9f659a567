-- Moves a session to its next generation if it is where the intent says. Answers whether it did, and the row.
-- KEYS: row, events, late
-- ARGV: token, scope and tag, position, now, next position, next issue, idle expiry, event's stream id, bytes and text;
--       where there is any of it: effects or '', auth or '', least generation
local row = read()
local now = tonumber(ARGV[4])
if row[REV] == ARGV[1] then
  return { 1, row }
elseif row[OF] ~= ARGV[2] or row[POSITION] ~= ARGV[3] or row[ENDED]
  or tonumber(row[IDLE]) <= now or tonumber(row[EXPIRES]) <= now then
  return { 0, row }
end
-- What most refreshes leave as it is.
local function put(place, field, value)
  row[place] = value
  redis.call('HSET', KEYS[1], field, value)
end
if row[CONFIRMED] ~= '0' and (row[POSITION] ~= ARGV[5] or row[ISSUED] ~= ARGV[6]) then
  put(CONFIRMED, 'confirmed', '0')
end
if ARGV[11] and ARGV[11] ~= '' then
  put(OUT, 'out', (row[OUT] or '') .. ARGV[11])
end
if ARGV[12] and ARGV[12] ~= '' then
  put(AUTH, 'auth', ARGV[12])
  put(LEAST, 'least', ARGV[13])
end
row[REV], row[POSITION], row[ISSUED] = ARGV[1], ARGV[5], ARGV[6]
row[IDLE] = tonumber(ARGV[7]) < tonumber(row[EXPIRES]) and ARGV[7] or row[EXPIRES]
redis.call('HSET', KEYS[1], 'rev', row[REV], 'position', row[POSITION], 'issued', row[ISSUED], 'idle', row[IDLE])
journal(KEYS[2], KEYS[3], ARGV[8], ARGV[9], ARGV[10])
return { 1, row }
