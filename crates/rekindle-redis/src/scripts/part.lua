-- The keys and arguments of the next of several calls that came as one.
-- ARGV: of each call the number of its keys, that of its arguments, and its arguments; the keys of all are in their order
local key, argument = 0, 0
local function part()
  local keys, arguments = {}, {}
  for i = 1, tonumber(ARGV[argument + 1]) do
    keys[i] = KEYS[key + i]
  end
  for i = 1, tonumber(ARGV[argument + 2]) do
    arguments[i] = ARGV[argument + 2 + i]
  end
  key = key + #keys
  argument = argument + 2 + #arguments
  return keys, arguments
end
