-- Decides whether a session may start, and notes that it does: from here on whoever meets the note completes the start.
-- KEYS: user, sessions, starts, idempotency key or again the user
-- ARGV: what to do (look or reserve), revision of the user that the decision rests on or '*', now, session's id,
--       the start's text, user's id, idempotency entry or '', milliseconds until it is garbage
if ARGV[7] ~= '' then
  local known = redis.call('GET', KEYS[4])
  if known then
    local request, expires, id = string.match(known, '^(%x+) (%-?%d+) (%x+)$')
    if tonumber(expires) > tonumber(ARGV[3]) and id ~= string.match(ARGV[7], '(%x+)$') then
      return { 'repeated', id, request }
    end
  end
end
if redis.call('ZSCORE', KEYS[2], ARGV[4]) then
  return { 'known' }
end
local user = redis.call('HMGET', KEYS[1], 'ban', 'until', 'rev')
if user[1] and (user[2] == '' or tonumber(user[2]) > tonumber(ARGV[3])) then
  return { 'banned', user[1] }
end
if ARGV[1] == 'look' then
  return { 'free', user[3] or '', redis.call('HVALS', KEYS[3]) }
end
if ARGV[2] ~= '*' and (user[3] or '') ~= ARGV[2] then
  return { 'changed' }
end
redis.call('HSET', KEYS[1], 'rev', ARGV[4], 'id', ARGV[6])
redis.call('ZADD', KEYS[2], 0, ARGV[4])
redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
if ARGV[7] ~= '' then
  redis.call('SET', KEYS[4], ARGV[7], 'PX', ARGV[8])
end
return { 'reserved' }
