-- Appends to the feed what is not in it yet.
-- KEYS: entries, numbers, expiries, last
-- ARGV: of each entry its event and session, least number, expiry and text
for i = 1, #ARGV, 4 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    redis.call('ZADD', KEYS[3], ARGV[i + 2], ARGV[i])
    redis.call('INCR', KEYS[4])
    -- As text: a number of Lua's would lose digits.
    local seq, least = redis.call('GET', KEYS[4]), ARGV[i + 1]
    if #least > #seq or (#least == #seq and least > seq) then
      redis.call('SET', KEYS[4], least)
      seq = least
    end
    redis.call('XADD', KEYS[1], seq .. '-0', 'entry', ARGV[i + 3])
    redis.call('HSET', KEYS[2], ARGV[i], seq)
  end
end
