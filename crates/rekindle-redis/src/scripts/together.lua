-- Says that keys of several slots can be used together.
-- KEYS: two of different slots
return 1
