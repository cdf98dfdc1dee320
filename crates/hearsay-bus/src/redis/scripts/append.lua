-- Appends a batch (or, without a publisher, what the clock asks for), moves the watermark, announces the entries.
-- ARGV[3] publisher, or empty; ARGV[4] packed; ARGV[5] restart point, or empty
-- ARGV[6] the entries; ARGV[7] the life that follows; ARGV[8] leases it took; ARGV[9] conversation
local h = load()
if not h then return answer(nil, GONE) end
local publisher = ARGV[3]
local generation, from, through, known, seen_epoch, seen_offset, seen_check, max, flags, lease, own,
  count, classes, last_check, with_life, expected_life, expected_top, state, life_flags, streams, heard, ttl =
  struct.unpack('>I8I8I8BI4I8c8I8BI8I2I2c12c8BI4I8BBI2I8I8', ARGV[4])
local late, speaks, closing, analyst = has(flags, 1), has(flags, 2), has(flags, 4), has(flags, 8)
local place, holder, watermark = 'p:' .. publisher, nil, 0

if publisher ~= '' then
  local refused = admits(h, late)
  if refused then return answer(h, refused) end
  moved(h)
  notice(h, known, seen_epoch, seen_offset, seen_check)
  holder = redis.call('HGET', KEYS[2], place)
  local refusal, current = judged(h, holder, generation)
  if refusal then return answer(h, refusal, current) end
  if from > through or (from == through and own > 0) then return answer(h, INVALID) end
  watermark = struct.unpack('>I8', holder, 13)
  if through <= watermark then
    -- Written as it stands: who waits for replicas waits for a write of its own connection.
    redis.call('HSET', KEYS[2], place, holder)
    for at = PUBLISHER_BYTES + 1, #holder, RECENT_BYTES do
      local reached, epoch, offset = struct.unpack('>I8I4I8', holder, at)
      if reached >= through then return answer(h, DUPLICATE, watermark, epoch, offset) end
    end
    return answer(h, DUPLICATE, watermark)
  end
  if from < watermark then return answer(h, OVERLAP, watermark) end
  if from > watermark then return answer(h, HOLE, watermark) end
  if not closing and h.top + own > max then return answer(h, FULL) end
else
  moved(h)
end
if with_life == 1 then
  if h.life ~= expected_life or h.top ~= expected_top then return answer(h, AGAIN) end
elseif analyst and has(h.flags, ENDING) then
  return answer(h, LIFE)
end

local epoch, position = h.epoch, h.top + own
if count > 0 then store(h, count, ARGV[6], classes, last_check) end
if speaks and now > h.heard then h.heard = now end
if holder then
  local recent = string.sub(holder, PUBLISHER_BYTES + 1)
  if #recent >= RECENT * RECENT_BYTES then recent = string.sub(recent, RECENT_BYTES + 1) end
  holder = struct.pack('>I8', through) .. string.sub(holder, 21, 28) .. struct.pack('>I8', now + lease) .. recent
    .. struct.pack('>I8I4I8', through, epoch, position)
  holder = struct.pack('>I8I4', generation, h.branched) .. holder
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[2], place, holder, 'r:' .. publisher, ARGV[5])
  else
    redis.call('HSET', KEYS[2], place, holder)
  end
end
if with_life == 1 then
  h.life = h.life + 1
  h.state = state
  h.flags = life_flags + (has(h.flags, DROPPED) and DROPPED or 0)
  h.streams = streams
  if heard > h.heard then h.heard = heard end
  redis.call('HSET', KEYS[2], 'life', ARGV[7])
  local kept = leases()
  for at = 1, #ARGV[8], LEASE_BYTES do
    local gateway, until_, listeners = struct.unpack('>c16I8I4', ARGV[8], at)
    local found = false
    for _, lease in ipairs(kept) do
      if lease[1] == gateway then
        found = true
        if until_ > lease[2] then lease[2], lease[3] = until_, listeners end
      end
    end
    if not found then kept[#kept + 1] = { gateway, until_, listeners } end
  end
  keep_leases(kept)
  local is_open = redis.call('GET', KEYS[4]) == ARGV[9]
  if state >= ENDED then
    if is_open then redis.call('DEL', KEYS[4]) end
  elseif is_open then
    redis.call('PEXPIRE', KEYS[4], ttl)
  end
end
save(h)
h.dirty = false
if with_life == 1 then live_for(ttl) end
return answer(h, OK, through, epoch, position)
