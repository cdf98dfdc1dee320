-- ARGV[3] packed. Answers: what it is (page, or why there is a gap), the resume point, then of each batch
-- its first offset and itself.
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
    return gap(2, agreed, check_at(h, agreed))
  end
elseif offset > h.top then
  return gap(3, h.top, top_check)
end
if dropped and offset < h.top then return gap(1, h.top, top_check) end
local first = math.min(offset, h.top)
local reply = { '', struct.pack('>BI8Bc8', 0, first, 0, NOTHING) }
if not dropped then
  -- From the batch that holds the next entry, whose first part may be known.
  local found = redis.call('XREVRANGE', KEYS[3], string.format('%.0f-0', first + 1), '-', 'COUNT', 1)[1]
  local batches = first < h.top and found
    and redis.call('XRANGE', KEYS[3], found[1], string.format('%.0f-0', first + max), 'COUNT', max) or {}
  for i = 1, #batches do
    reply[2 * i + 1], reply[2 * i + 2] = string.match(batches[i][1], '^%d+'), batches[i][2][2]
  end
end
reply[1] = answer(h, OK)
return reply
