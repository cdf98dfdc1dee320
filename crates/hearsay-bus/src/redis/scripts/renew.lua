-- ARGV[3] packed: gateway, lease, listeners
local h = load()
if not h or h.state == DELETED then return { answer(nil, GONE) } end
moved(h)
local gateway, lease, listeners = struct.unpack('>c16I8I4', ARGV[3])
if h.state <= LINGERING and has(h.flags, LOST) then return { answer(h, LIFE) } end
local kept, found, all = leases(), false, 0
for _, one in ipairs(kept) do
  if one[1] == gateway then
    one[2], one[3], found = now + lease, listeners, true
  end
  all = all + one[3]
end
if not found then
  kept[#kept + 1] = { gateway, now + lease, listeners }
  all = all + listeners
end
keep_leases(kept)
local more = redis.call('HMGET', KEYS[2], 'title', 'started')
return { answer(h, OK, all), pack(h), more[1] or '', more[2] or '0' }
