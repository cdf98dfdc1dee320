-- Shared by all scripts. One conversation is three keys of one hash tag, which always exist together while it is live:
--   KEYS[1] head   packed: what every call looks at
--   KEYS[2] more   hash: life, leases, publishers, names, branches, record
--   KEYS[3] log    stream: one item a batch, its id the offset of the batch's first entry
--
-- A batch is packed: count, time, which classes it has and the next number of each of those; then what the publisher
-- gave, unchanged: of each entry its length, check, class and the rest. It is announced as it is stored, with epoch and
-- first offset before it.
--   KEYS[4] open   the meeting's open conversation
-- ARGV[1] packed: the clock's offset in µs, the node's identity, a fresh epoch.
-- ARGV[2] the conversation's channel.

local OPEN, LINGERING, ENDED, COMPACTED, DELETED = 1, 2, 3, 4, 5
local OK, DUPLICATE, GONE, IS_ENDED, RECLAIM, FENCED, OVERLAP, HOLE, UNCLAIMED, HELD, FULL, AGAIN, LIFE, INVALID =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
local ENDING, LOST, DROPPED = 1, 2, 4
local HEAD = '>BBBBI4I4I4I8c8c8I8I4I4I4I4I4I4I2'
local PUBLISHER = '>I8I4I8I8I8'
local PUBLISHER_BYTES, RECENT_BYTES, RECENT = 36, 20, 8
local LEASE_BYTES = 28
local BATCH_BYTES = 11
local BRANCH_BYTES, BRANCHES = 12, 64
local NOTHING = string.rep('\0', 8)

local shift, identity, fresh = struct.unpack('>i8c8I4', ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] + shift

local function has(flags, flag)
  return flags % (2 * flag) >= flag
end

local function load()
  local raw = redis.call('GET', KEYS[1])
  if not raw then return nil end
  local h = { seq = {} }
  local s = h.seq
  h.version, h.state, h.flags, h.spare, h.epoch, h.branched, h.life, h.top, h.check, h.identity, h.heard,
    s[1], s[2], s[3], s[4], s[5], s[6], h.streams = struct.unpack(HEAD, raw)
  if h.version ~= 1 then
    error({ err = 'HEARSAY the log was written by a version this one cannot read: ' .. h.version })
  end
  h.before = h.epoch
  return h
end

local function pack(h)
  local s = h.seq
  return struct.pack(HEAD, 1, h.state, h.flags, 0, h.epoch, h.branched, h.life, h.top, h.check, h.identity, h.heard,
    s[1], s[2], s[3], s[4], s[5], s[6], h.streams)
end

-- Up to where the epoch agrees with the present one; none for an epoch that is not known.
local function agrees(h, epoch)
  if epoch == h.epoch then return 2 ^ 53 end
  local known = redis.call('HGET', KEYS[2], 'b')
  if not known then return nil end
  local least = nil
  for at = 1, #known, BRANCH_BYTES do
    local old, offset = struct.unpack('>I4I8', known, at)
    if least == nil then
      if old == epoch then least = offset end
    elseif offset < least then
      least = offset
    end
  end
  return least
end

local function branch(h, agreed)
  local known = redis.call('HGET', KEYS[2], 'b') or ''
  if #known >= BRANCH_BYTES * BRANCHES then known = string.sub(known, BRANCH_BYTES + 1) end
  redis.call('HSET', KEYS[2], 'b', known .. struct.pack('>I4I8', h.epoch, agreed))
  h.branched = h.branched + 1
  h.dirty = true
  while agrees(h, fresh) do fresh = (fresh + 1) % 4294967296 end
  h.epoch = fresh
  redis.call('SPUBLISH', ARGV[2], 'C')
end

-- The check of the entry at an offset; none when it does not stand there.
local function check_at(h, offset)
  if offset < 1 or offset > h.top or has(h.flags, DROPPED) then return nil end
  if offset == h.top then return h.check end
  local found = redis.call('XREVRANGE', KEYS[3], string.format('%.0f-0', offset), '-', 'COUNT', 1)[1]
  if not found then return nil end
  local batch = found[2][2]
  local first = tonumber(string.match(found[1], '^%d+'))
  local classes, at = string.byte(batch, BATCH_BYTES), BATCH_BYTES + 1
  while classes > 0 do
    if classes % 2 == 1 then at = at + 4 end
    classes = math.floor(classes / 2)
  end
  for _ = 1, offset - first do
    at = at + 4 + struct.unpack('>I4', batch, at)
  end
  return string.sub(batch, at + 4, at + 11)
end

-- The entry that was seen stands there.
local function holds(h, offset, check)
  return check_at(h, offset) == check
end

-- A batch as it is stored and announced: count entries, as they came, the last of which has this check.
local function store(h, count, entries, classes, check)
  local s = h.seq
  local mask, numbers = 0, {}
  for class = 1, 6 do
    local more = string.byte(classes, 2 * class - 1) * 256 + string.byte(classes, 2 * class)
    if more > 0 then
      mask = mask + 2 ^ (class - 1)
      numbers[#numbers + 1] = struct.pack('>I4', s[class])
      s[class] = s[class] + more
    end
  end
  local batch = struct.pack('>I2I8B', count, now, mask) .. table.concat(numbers) .. entries
  local first = h.top + 1
  redis.call('XADD', KEYS[3], string.format('%.0f-0', first), 'e', batch)
  h.top = h.top + count
  h.check = check
  redis.call('SPUBLISH', ARGV[2], struct.pack('>c1I4I8', 'A', h.epoch, first) .. batch)
end

-- Another process holds the data than at the last write: whatever was not replicated is gone.
local function moved(h)
  if h.identity ~= identity and not has(h.flags, DROPPED) then
    if h.identity ~= NOTHING then branch(h, h.top) end
    h.identity = identity
    h.dirty = true
  end
end

-- Branches when what was seen shows that history was lost.
local function notice(h, known, epoch, offset, check)
  if known < 2 or offset == 0 or has(h.flags, DROPPED) then return end
  local below = math.min(offset - 1, h.top)
  local agreed = agrees(h, epoch)
  if agreed == nil then
    branch(h, h.top)
  elseif offset > agreed or holds(h, offset, check) then
    return
  elseif epoch == h.epoch then
    branch(h, below)
  else
    -- The histories parted earlier than was known.
    local branches = redis.call('HGET', KEYS[2], 'b')
    for at = 1, #branches, BRANCH_BYTES do
      if struct.unpack('>I4', branches, at) == epoch then
        branches = string.sub(branches, 1, at + 3) .. struct.pack('>I8', below) .. string.sub(branches, at + BRANCH_BYTES)
        redis.call('HSET', KEYS[2], 'b', branches)
        return
      end
    end
  end
end

local function save(h)
  redis.call('SET', KEYS[1], pack(h), 'KEEPTTL')
end

-- The answer every script gives.
local function answer(h, code, aux, epoch, offset)
  if h and h.dirty then save(h) end
  if not h then
    return struct.pack('>BBI4I8I8I4I8c8I8', code, 0, 0, 0, aux or 0, 0, 0, NOTHING, now)
  end
  return struct.pack('>BBI4I8I8I4I8c8I8', code, h.before ~= h.epoch and 1 or 0, epoch or h.epoch, offset or h.top,
    aux or 0, h.epoch, h.top, h.check, now)
end

-- Refuses what this state takes from this publisher no more.
local function admits(h, late)
  if h.state <= LINGERING or (h.state == ENDED and late) then return nil end
  if h.state == DELETED then return GONE end
  return IS_ENDED
end

-- Refuses a publisher that is not the present holder of its place.
local function judged(h, holder, generation)
  if not holder then
    if h.branched == 0 and generation == 0 then return UNCLAIMED end
    return RECLAIM
  end
  local current, branched = struct.unpack('>I8I4', holder)
  if generation < current then return FENCED, current end
  if generation > current or branched < h.branched then return RECLAIM end
end

-- Leases are 28 bytes each: gateway, until, listeners. Those that ended are forgotten.
local function leases()
  local kept, count, raw = {}, 0, redis.call('HGET', KEYS[2], 'g') or ''
  for at = 1, #raw, LEASE_BYTES do
    local gateway, until_, listeners = struct.unpack('>c16I8I4', raw, at)
    if until_ > now then
      count = count + 1
      kept[count] = { gateway, until_, listeners }
    end
  end
  return kept
end

local function keep_leases(kept)
  local packed = {}
  for i, lease in ipairs(kept) do packed[i] = struct.pack('>c16I8I4', lease[1], lease[2], lease[3]) end
  redis.call('HSET', KEYS[2], 'g', table.concat(packed))
end

local function live_for(ms)
  redis.call('PEXPIRE', KEYS[1], ms)
  redis.call('PEXPIRE', KEYS[2], ms)
  redis.call('PEXPIRE', KEYS[3], ms)
end
