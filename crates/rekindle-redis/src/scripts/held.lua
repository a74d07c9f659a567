-- How many events there are of a session, the stream's last id, and the bytes of the last one that came late.
-- KEYS: events, late
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local late = redis.call('ZREVRANGE', KEYS[2], 0, 0)[1]
local count = redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2])
return { count, last and last[1] or false, late and string.sub(late, 1, 16) or false }
