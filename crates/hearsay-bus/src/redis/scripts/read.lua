-- ARGV[3] packed. Answers: what it is (page, or why there is a gap), the resume point, the entries.
local h = load()
if not h then return { answer(nil, GONE), '' } end
if h.state == DELETED then return { answer(h, GONE), '' } end
local known, epoch, offset, check, max = struct.unpack('>BI4I8c8I4', ARGV[3])
moved(h)
notice(h, known, epoch, offset, check)
local function gap(reason, at, its_check)
  return { answer(h, OK), struct.pack('>BI8Bc8', reason, at, its_check and 1 or 0, its_check or NOTHING) }
end
local dropped = has(h.flags, DROPPED)
local top_check = h.top > 0 and h.check or nil
if known >= 1 and epoch ~= h.epoch then
  local agreed = agrees(h, epoch)
  if agreed == nil then return gap(3, 0) end
  if offset > agreed then
    local entry = not dropped and agreed > 0 and redis.call('LINDEX', KEYS[3], agreed - 1)
    return gap(2, agreed, entry and string.sub(entry, 1, 8))
  end
elseif offset > h.top then
  return gap(3, h.top, top_check)
end
if dropped and offset < h.top then return gap(1, h.top, top_check) end
local first = math.min(offset, h.top)
local reply = { '', struct.pack('>BI8Bc8', 0, first, 0, NOTHING) }
if not dropped then
  local entries = redis.call('LRANGE', KEYS[3], first, first + max - 1)
  for i = 1, #entries do reply[i + 2] = entries[i] end
end
reply[1] = answer(h, OK)
return reply
