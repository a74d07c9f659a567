-- Forgets a user of whom nothing is left; whether nothing is.
-- KEYS: user, sessions, starts
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 or redis.call('HEXISTS', KEYS[1], 'ban') == 1
  or redis.call('HEXISTS', KEYS[1], 'out') == 1 then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
