-- ARGV[3] publisher; ARGV[4] packed
local h = load()
if not h then return { answer(nil, GONE), '', '' } end
local skip, branch_skip, flags, lease = struct.unpack('>I8I8BI8', ARGV[4])
local refused = admits(h, has(flags, 1))
if refused then return { answer(h, refused), '', '' } end
moved(h)
local place = 'p:' .. ARGV[3]
local holder = redis.call('HGET', KEYS[2], place)
local generation, watermark, origin, recent = 0, 0, now, ''
if holder then
  local branched, until_
  generation, branched, watermark, origin, until_ = struct.unpack(PUBLISHER, holder)
  -- Before a branch everybody has to claim anew, so no lease of then keeps anybody out.
  if branched == h.branched and has(flags, 2) and until_ > now then return { answer(h, HELD, until_), '', '' } end
  recent = string.sub(holder, PUBLISHER_BYTES + 1)
end
generation = generation + 1 + skip
if h.branched > 0 then generation = generation + branch_skip end
redis.call('HSET', KEYS[2], place,
  struct.pack(PUBLISHER, generation, h.branched, watermark, origin, now + lease) .. recent)
local restart = redis.call('HGET', KEYS[2], 'r:' .. ARGV[3]) or ''
return { answer(h, OK), struct.pack('>I8I8I8', generation, watermark, origin), restart }
