-- ARGV[3] packed: gateway, the life it was decided by, whether streams remain
local h = load()
if not h or h.state == DELETED then return answer(nil, GONE) end
local gateway, life, stays = struct.unpack('>c16I4B', ARGV[3])
if h.life ~= life then return answer(h, AGAIN) end
local kept = {}
for _, one in ipairs(leases()) do
  if one[1] ~= gateway then
    kept[#kept + 1] = one
  elseif stays == 1 then
    kept[#kept + 1] = { one[1], one[2], 0 }
  end
end
keep_leases(kept)
return answer(h, OK)
