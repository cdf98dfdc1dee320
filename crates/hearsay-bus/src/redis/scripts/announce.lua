-- ARGV[3] publisher; ARGV[4] packed; ARGV[5] the ephemerals, as they are announced
local h = load()
if not h then return answer(nil, GONE) end
local generation, flags = struct.unpack('>I8B', ARGV[4])
local refused = admits(h, has(flags, 1))
if refused then return answer(h, refused) end
moved(h)
local refusal, current = judged(h, redis.call('HGET', KEYS[2], 'p:' .. ARGV[3]), generation)
if refusal then return answer(h, refusal, current) end
if ARGV[5] ~= '' then
  -- Silence is measured in minutes: a second's precision will do.
  if has(flags, 2) and now > h.heard + 1000000 then
    h.heard = now
    h.dirty = true
  end
  redis.call('SPUBLISH', ARGV[2], struct.pack('>c1I4I8', 'E', h.epoch, h.top) .. ARGV[5])
end
return answer(h, OK)
