-- A row's fields, and the places of those that are looked at.
local function read()
  return redis.call('HMGET', KEYS[1],
    'rev', 'of', 'position', 'issued', 'confirmed', 'least', 'idle', 'expires', 'ended', 'auth', 'version', 'start', 'out',
    'gone', 'data', 'claims'
  )
end
local REV, OF, POSITION, ISSUED, CONFIRMED, LEAST, IDLE, EXPIRES, ENDED, AUTH, OUT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13
