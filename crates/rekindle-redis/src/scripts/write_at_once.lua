-- Writes a row, and carries out what that entails. Answers as `write` does.
-- Calls: write, publish, outbox_add, add (to the audit log)
local answer = write(part())
if answer[1] == 1 then
  publish(part())
  outbox_add(part())
  add(part())
end
return answer
