-- ARGV[3] publisher; ARGV[4] packed
local h = load()
if not h then return answer(nil, GONE) end
local generation, flags, lease = struct.unpack('>I8BI8', ARGV[4])
local refused = admits(h, has(flags, 1))
if refused then return answer(h, refused) end
moved(h)
local place = 'p:' .. ARGV[3]
local holder = redis.call('HGET', KEYS[2], place)
local refusal, current = judged(h, holder, generation)
if refusal then return answer(h, refusal, current) end
redis.call('HSET', KEYS[2], place,
  string.sub(holder, 1, 28) .. struct.pack('>I8', now + lease) .. string.sub(holder, PUBLISHER_BYTES + 1))
return answer(h, OK)
