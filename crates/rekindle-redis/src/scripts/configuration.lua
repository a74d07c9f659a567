-- Reads the configuration with every version of every definition.
-- KEYS: current, versions
return { redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]) }
