-- What the conversation is. ARGV[3]: 1 to load its life, too.
local h = load()
if not h then return { answer(nil, GONE) } end
if h.state == DELETED then return { answer(h, GONE) } end
moved(h)
local more = redis.call('HMGET', KEYS[2], 'title', 'started')
local reply = { '', pack(h), more[1] or '', more[2] or '0' }
if ARGV[3] == '1' then
  local life = redis.call('HMGET', KEYS[2], 'life', 'g', 'p:analyst')
  reply[5], reply[6], reply[7] = life[1] or '', life[2] or '', life[3] or ''
end
reply[1] = answer(h, OK)
return reply
