-- Dials only if the guard says so. For the dialplan of FreeSWITCH, in place of the bridge:
--
--     <action application="lua" data="may_dial.lua CALL.json +NUMBER DIAL-STRING"/>
--
-- It does the bridge itself: a script that fails dials nothing. ask_http.py does the asking.

local ask = "python3 /usr/local/bin/ask_http.py "

local function may_dial(call_file, number)
  -- Both become part of a command line.
  if not number:match("^%+%d+$") or not call_file:match("^[%w/._-]+$") then
    return false, "no number"
  end
  local asked = io.popen(ask .. call_file .. " " .. number, "r")
  if not asked then
    return false, "no answer"
  end
  local answer = asked:read("*l")
  asked:close()
  return answer == "dial", answer or "no answer"
end

local dials, why = may_dial(argv[1] or "", argv[2] or "")
session:consoleLog("notice", "ringfence: " .. why .. "\n")
if dials then
  session:execute("bridge", argv[3])
else
  session:hangup("CALL_REJECTED")
end
