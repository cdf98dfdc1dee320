-- Puts a record in the place of the entries, or deletes them.
-- ARGV[3] packed: the state that follows, the life and top it was decided by, how long the rest is kept in ms
-- ARGV[4] the life that follows; ARGV[5] conversation; from ARGV[6] the record, in parts that fill what memory is given in
local h = load()
if not h or h.state == DELETED then return answer(nil, GONE) end
local state, life, top, ttl = struct.unpack('>BI4I8I8', ARGV[3])
if h.life ~= life or (top > 0 and h.top ~= top) then return answer(h, AGAIN) end
moved(h)
h.state, h.flags, h.life, h.streams = state, DROPPED, h.life + 1, 0
redis.call('DEL', KEYS[3])
local fields = redis.call('HKEYS', KEYS[2])
for _, field in ipairs(fields) do
  if not (field == 'b' or field == 'started' or field == 'title' and state ~= DELETED
    or string.sub(field, 1, 7) == 'record:' and state ~= DELETED) then
    redis.call('HDEL', KEYS[2], field)
  end
end
redis.call('HSET', KEYS[2], 'life', ARGV[4])
for i = 6, #ARGV do redis.call('HSET', KEYS[2], 'record:' .. i - 6, ARGV[i]) end
if redis.call('GET', KEYS[4]) == ARGV[5] then redis.call('DEL', KEYS[4]) end
save(h)
h.dirty = false
live_for(ttl)
redis.call('SPUBLISH', ARGV[2], 'C')
return answer(h, OK)
