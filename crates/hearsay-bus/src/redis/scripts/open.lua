-- Opens a conversation unless the meeting has one that is live.
-- ARGV[3] conversation; ARGV[4] title; ARGV[5] life; ARGV[6] the first entry; ARGV[7] packed; ARGV[8] the meeting's channel
-- ARGV[9] what the meeting's key still names although it is over, or empty
local current = redis.call('GET', KEYS[4])
if current and current ~= ARGV[9] then return { answer(nil, AGAIN) } end
if redis.call('EXISTS', KEYS[1]) == 1 then return { answer(nil, INVALID) } end
local epoch, classes, check, ttl = struct.unpack('>I4c12c8I8', ARGV[7])
local h = { state = LINGERING, flags = 0, epoch = epoch, before = epoch, branched = 0, life = 1, top = 1, check = check,
  identity = identity, heard = now, streams = 0, seq = { 0, 0, 0, 0, 0, 0 } }
h.top = 0
store(h, 1, ARGV[6], classes, check)
redis.call('HSET', KEYS[2], 'life', ARGV[5], 'title', ARGV[4], 'started', string.format('%.0f', now))
save(h)
live_for(ttl)
redis.call('SET', KEYS[4], ARGV[3], 'PX', ttl)
redis.call('SPUBLISH', ARGV[8], ARGV[3])
return { answer(h, OK), pack(h), ARGV[4], string.format('%.0f', now) }
