-- Starts a session that replaces none and counts none, if nothing speaks against it. Answers `started`; otherwise as
-- `reserve` does, where `free` means that there is a row with the session's id, or was a short while ago.
-- Calls: reserve (to look), write, outbox_add, add (to the scope's sessions), index_user, join
local answer = reserve(part())
if answer[1] == 'free' and write(part())[1] == 1 then
  outbox_add(part())
  add(part())
  index_user(part())
  join(part())
  return { 'started' }
end
return answer
