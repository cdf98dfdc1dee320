-- The short way of what speakers do most: the next stretch of a live conversation in which nothing else changed.
-- Everything that is not plain goes the long way, append.lua, which gives the reasons; keys and layouts are prelude.lua's.
-- ARGV[1] packed: the clock's offset, the node's identity; ARGV[2] channel; ARGV[3] publisher; ARGV[4] packed
-- ARGV[5] restart point, or empty; ARGV[6] of each event its random check and its class; from ARGV[7] the events
local raw = redis.call('GET', KEYS[1])
if not raw then return '' end
local unpack_, pack_, sub = struct.unpack, struct.pack, string.sub
local version, state, flags, epoch, branched, top, check, heard = unpack_('>BBBxI4I4xxxxI8c8xxxxxxxxI8', raw)
local generation, from, through, seen_epoch, seen_offset, seen_check, max, how, lease =
  unpack_('>I8I8I8I4I8c8I8BI8', ARGV[4])
local place = 'p:' .. ARGV[3]
local holder = redis.call('HGET', KEYS[2], place)
local count = #ARGV - 6
if version ~= 1 or state > 2 or not holder or epoch ~= seen_epoch or sub(raw, 33, 40) ~= sub(ARGV[1], 9, 16)
  or top + count > max or (how >= 8 and flags % 2 == 1) then
  return ''
end
if seen_offset ~= top then
  local entry = seen_offset < top and redis.call('LINDEX', KEYS[3], seen_offset - 1)
  if not entry or sub(entry, 1, 8) ~= seen_check then return '' end
elseif seen_check ~= check then
  return ''
end
local held, held_branched, watermark = unpack_('>I8I4I8', holder)
if held ~= generation or held_branched ~= branched or from ~= watermark or through <= from then return '' end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] + unpack_('>i8', ARGV[1])
if count > 0 then
  local seq = { unpack_('>I4I4I4I4I4I4', raw, 49) }
  local entries, parts = {}, { pack_('>c1I4I8I2', 'A', epoch, top + 1, count) }
  for i = 1, count do
    local its, class = unpack_('>c8B', ARGV[6], i * 9 - 8)
    class = class + 1
    local entry = pack_('>c8I8I4', its, now, seq[class]) .. ARGV[6 + i]
    seq[class] = seq[class] + 1
    entries[i] = entry
    parts[2 * i] = pack_('>I4', #entry)
    parts[2 * i + 1] = entry
    check = its
  end
  if count == 1 then
    redis.call('RPUSH', KEYS[3], entries[1])
  else
    redis.call('RPUSH', KEYS[3], unpack(entries))
  end
  top = top + count
  if how % 4 >= 2 and now > heard then heard = now end
  redis.call('SETRANGE', KEYS[1], 16, pack_('>I8c8', top, check) .. sub(raw, 33, 40)
    .. pack_('>I8I4I4I4I4I4I4', heard, seq[1], seq[2], seq[3], seq[4], seq[5], seq[6]))
  redis.call('SPUBLISH', ARGV[2], table.concat(parts))
end
local recent = sub(holder, 37)
if #recent >= 160 then recent = sub(recent, 21) end
holder = sub(holder, 1, 12) .. pack_('>I8', through) .. sub(holder, 21, 28) .. pack_('>I8', now + lease) .. recent
  .. pack_('>I8I4I8', through, epoch, top)
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], place, holder, 'r:' .. ARGV[3], ARGV[5])
else
  redis.call('HSET', KEYS[2], place, holder)
end
return pack_('>BBI4I8I8I4I8c8I8', 1, 0, epoch, top, through, epoch, top, check, now)
