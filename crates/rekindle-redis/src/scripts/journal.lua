-- Writes an event into a session's stream. The stream takes only ids after its last: one that came late goes beside it.
local function journal(stream, late, id, bytes, payload)
  if type(redis.pcall('XADD', stream, id, 'event', payload)) == 'table' and #redis.call('XRANGE', stream, id, id) == 0 then
    redis.call('ZADD', late, 0, bytes .. payload)
  end
end
