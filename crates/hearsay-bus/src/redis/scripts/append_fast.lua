-- The short way of what speakers do most: the next stretch of a live conversation in which nothing else changed.
-- Everything that is not plain goes the long way, append.lua, which gives the reasons; keys and layouts are prelude.lua's.
-- ARGV[1] packed: the clock's offset, the node's identity; ARGV[2] channel; ARGV[3] publisher; ARGV[4] packed
-- ARGV[5] restart point, or empty; ARGV[6] the entries
local raw = redis.call('GET', KEYS[1])
if not raw then return '' end
local unpack, pack, sub = struct.unpack, struct.pack, string.sub
local version, state, flags, epoch, branched, top, check, identity, heard, s1, s2, s3, s4, s5, s6 =
  unpack('>BBBxI4I4xxxxI8c8c8I8I4I4I4I4I4I4', raw)
local generation, from, through, seen_epoch, seen_offset, seen_check, max, how, lease, count, c1, c2, c3, c4, c5, c6, last =
  unpack('>I8I8I8I4I8c8I8BI8I2I2I2I2I2I2I2c8', ARGV[4])
local place = 'p:' .. ARGV[3]
local holder = redis.call('HGET', KEYS[2], place)
if version ~= 1 or state > 2 or not holder or epoch ~= seen_epoch or identity ~= sub(ARGV[1], 9, 16)
  or top + count > max or (how >= 8 and flags % 2 == 1) then
  return ''
end
if seen_offset ~= top then
  -- Most have seen all but the last few: what others said since.
  local found = seen_offset < top
    and redis.call('XREVRANGE', KEYS[3], string.format('%.0f-0', seen_offset), '-', 'COUNT', 1)[1]
  if not found then return '' end
  local batch = found[2][2]
  local classes, at = string.byte(batch, 11), 12
  while classes > 0 do
    if classes % 2 == 1 then at = at + 4 end
    classes = math.floor(classes / 2)
  end
  for _ = 1, seen_offset - string.match(found[1], '^%d+') do at = at + 4 + unpack('>I4', batch, at) end
  if sub(batch, at + 4, at + 11) ~= seen_check then return '' end
elseif seen_check ~= check then
  return ''
end
local held, held_branched, watermark = unpack('>I8I4I8', holder)
if held ~= generation or held_branched ~= branched or from ~= watermark or through <= from then return '' end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] + unpack('>i8', ARGV[1])
if count > 0 then
  local batch
  if c1 == count then
    batch = pack('>I2I8BI4', count, now, 1, s1) .. ARGV[6]
  else
    local mask, numbers = 0, ''
    for class, one in ipairs({ { c1, s1 }, { c2, s2 }, { c3, s3 }, { c4, s4 }, { c5, s5 }, { c6, s6 } }) do
      if one[1] > 0 then mask, numbers = mask + 2 ^ (class - 1), numbers .. pack('>I4', one[2]) end
    end
    batch = pack('>I2I8B', count, now, mask) .. numbers .. ARGV[6]
  end
  redis.call('XADD', KEYS[3], string.format('%.0f-0', top + 1), 'e', batch)
  redis.call('SPUBLISH', ARGV[2], pack('>c1I4I8', 'A', epoch, top + 1) .. batch)
  top, check = top + count, last
  if how % 4 >= 2 and now > heard then heard = now end
  redis.call('SETRANGE', KEYS[1], 16, pack('>I8c8c8I8I4I4I4I4I4I4', top, check, identity, heard,
    s1 + c1, s2 + c2, s3 + c3, s4 + c4, s5 + c5, s6 + c6))
end
local recent = sub(holder, 37)
if #recent >= 160 then recent = sub(recent, 21) end
holder = sub(holder, 1, 12) .. pack('>I8', through) .. sub(holder, 21, 28) .. pack('>I8', now + lease) .. recent
  .. pack('>I8I4I8', through, epoch, top)
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], place, holder, 'r:' .. ARGV[3], ARGV[5])
else
  redis.call('HSET', KEYS[2], place, holder)
end
return pack('>BBI4I8I8I4I8c8I8', 1, 0, epoch, top, through, epoch, top, check, now)
