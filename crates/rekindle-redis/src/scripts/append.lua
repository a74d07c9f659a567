-- Writes events into a session's stream, but for those that are there.
-- KEYS: events, late
-- ARGV: of each event its stream id, bytes and text
for e = 1, #ARGV, 3 do
  local bytes = ARGV[e + 1]
  if #redis.call('ZRANGEBYLEX', KEYS[2], '[' .. bytes, '(' .. bytes .. '\255', 'LIMIT', 0, 1) == 0 then
    journal(KEYS[1], KEYS[2], ARGV[e], bytes, ARGV[e + 2])
  end
end
