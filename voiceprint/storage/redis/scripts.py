"""The scripts that a Redis server runs, each as one step that no other command comes between.

Each gets the fixed keys of one shard first (`Shard.fixed`), and answers with a list whose first item is
"ok", or says why nothing was done: "corrupt" (with the key and what is wrong), "conflict", "late".

A script that fails half way is not undone by the server. So all that can fail is looked at before the
first write: the types of the keys, the numbers, and who has changed what. A server out of memory refuses
the first write of a script if that takes memory, and none thereafter; so a commit begins with one that
takes memory, but for one that only removes: that must be possible then, and begins by giving some back.

Keys of callers that are found on the way are built from the shard's own tag, so they are in its slot.
"""

from __future__ import annotations

import hashlib

from voiceprint.storage.records import COUNTER_END, LAST_COUNTED_ID

_HEAD = f"local counter_end, last_counted_id = {COUNTER_END}, {LAST_COUNTED_ID}"
_HEAD += """
local kinds = {'hash', 'zset', 'hash', 'zset', 'zset', 'hash', 'zset', 'hash'}
local present = false
for i = 1, #kinds do
  local kind = redis.call('TYPE', KEYS[i])['ok']
  if kind ~= 'none' and kind ~= kinds[i] then
    return {'corrupt', KEYS[i], 'is a ' .. kind .. ', and should be a ' .. kinds[i]}
  end
  if i > 1 and kind ~= 'none' then present = true end
end
local meta = redis.call('HMGET', KEYS[1], 'rev', 'floor', 'next_id', 'format', 'shards', 'identity',
  'at', 'token')
for i = 1, 3 do
  if meta[i] and not (string.match(meta[i], '^%d+$') and #meta[i] < 16) then
    return {'corrupt', KEYS[1], 'has no whole number where a counter should be'}
  end
end
if present and not meta[1] then
  return {'corrupt', KEYS[1], 'has lost its counters: repair it by check(fix=True)'}
end
if meta[4] and meta[4] ~= '2' and meta[4] ~= '3' then
  return {'corrupt', KEYS[1], 'is of another format: it was written by a newer version'}
end
local rev, floor = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
local next_id = tonumber(meta[3] or '1')
local function text(number) return string.format('%.0f', number) end
local function record(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return nil, {'corrupt', key, 'holds no record'} end
  return value
end
"""


class Script:
    """A script, and the digest by which the server knows it once it has run it."""

    def __init__(self, body: str, head: str = _HEAD) -> None:
        self.source = head + body
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


# KEYS: the fixed ones, then callers. ARGV: how many new ids to take, then ids whose owners are asked for.
LOAD = Script("""
local values, owners = {}, {}
for i = 9, #KEYS do
  local value, bad = record(KEYS[i])
  if bad then return bad end
  values[i - 8] = value
end
for i = 2, #ARGV do owners[i - 1] = redis.call('HGET', KEYS[3], ARGV[i]) end
local spaces = redis.call('HGETALL', KEYS[6])
local taken = tonumber(ARGV[1])
if taken > 0 and next_id <= last_counted_id then
  redis.call('HSET', KEYS[1], 'next_id', text(next_id + taken))
end
return {'ok', redis.call('TIME'), text(rev), text(floor), text(next_id), meta[5], meta[6], spaces,
  owners, values, redis.call('EXISTS', KEYS[8])}
""")

# KEYS: the fixed ones, then the callers, then old keys.
# ARGV: until when (the server's time in us), identity, shards, adopted, tombstones to keep, next_id,
# callers, old keys, spaces, removed ids, ids without an owner, the token of the commit ("" where it changes
# no voiceprint), commits to keep, noted deletions; then for each space its encoder, by how
# many prints it grows, and their length; for each caller the id, the token of the version that the change
# is made on, the new record ("" to remove it), the ids of its new prints, the format of the record;
# the values of the old keys; and for each deletion its key, digest and time.
COMMIT = Script("""
local now = redis.call('TIME')
if tonumber(now[1]) * 1000000 + tonumber(now[2]) > tonumber(ARGV[1]) then return {'late'} end
if meta[5] and meta[5] ~= ARGV[3] then return {'shards', meta[5]} end
if rev + 1 >= counter_end then return {'corrupt', KEYS[1], 'has come to the last revision'} end
local callers, olds, spaces = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local first_caller = 15 + 3 * spaces
local first_old = first_caller + 5 * callers
local first_deletion = first_old + olds
local lost, given_up = {}, {}
for id in string.gmatch(ARGV[11], '%d+') do lost[id] = true end
for id in string.gmatch(ARGV[10], '%d+') do given_up[id] = true end
for s = 0, spaces - 1 do
  local encoder, dimension = ARGV[15 + 3 * s], ARGV[17 + 3 * s]
  local known = redis.call('HMGET', KEYS[6], 'n:' .. encoder, 'd:' .. encoder)
  if known[1] and not string.match(known[1], '^-?%d+$') then
    return {'corrupt', KEYS[6], 'has no whole number where a count should be'}
  end
  if dimension ~= '' and known[1] and tonumber(known[1]) > 0 and known[2] ~= dimension then
    return {'conflict'}
  end
end
local removal = true
for c = 0, callers - 1 do
  local at = first_caller + 5 * c
  local token = redis.pcall('GETRANGE', KEYS[9 + c], 0, 34)
  if type(token) == 'table' then return {'corrupt', KEYS[9 + c], 'holds no record'} end
  if token ~= ARGV[at + 1] then return {'conflict'} end
  if ARGV[at + 2] ~= '' then removal = false end
  for id in string.gmatch(ARGV[at + 3], '%d+') do
    local owner = redis.call('HGET', KEYS[3], id)
    if owner and owner ~= ARGV[at] and not given_up[id] then return {'conflict'} end
  end
end
for o = 0, olds - 1 do
  if redis.pcall('GET', KEYS[9 + callers + o]) ~= ARGV[first_old + o] then return {'conflict'} end
end
if removal then
  for c = 0, callers - 1 do redis.call('DEL', KEYS[9 + c]) end
end
rev = rev + 1
redis.call('HSET', KEYS[1], 'rev', text(rev))
if not meta[6] and ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], 'identity', ARGV[2], 'shards', ARGV[3])
end
if meta[4] ~= '3' then redis.call('HSET', KEYS[1], 'format', '3') end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'adopted', ARGV[4]) end
if tonumber(ARGV[6]) > next_id then redis.call('HSET', KEYS[1], 'next_id', ARGV[6]) end
for id in pairs(lost) do
  redis.call('HDEL', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
end
local number = string.format('%016.0f', rev)
for c = 0, callers - 1 do
  local at = first_caller + 5 * c
  local body = ARGV[at + 2]
  if body == '' then
    redis.call('DEL', KEYS[9 + c])
    redis.call('ZREM', KEYS[2], ARGV[at])
  else
    local head = ARGV[at + 4] .. ' ' .. number .. ' '
    local checksum = string.sub(redis.sha1hex(head .. body), 1, 16)
    redis.call('SET', KEYS[9 + c], head .. checksum .. '\\n' .. body)
    if ARGV[at + 1] == '' then redis.call('ZADD', KEYS[2], 0, ARGV[at]) end
    for id in string.gmatch(ARGV[at + 3], '%d+') do
      redis.call('HSET', KEYS[3], id, ARGV[at])
      redis.call('ZADD', KEYS[4], text(rev), id)
    end
  end
end
for id in string.gmatch(ARGV[10], '%d+') do redis.call('ZADD', KEYS[5], text(rev), id) end
if ARGV[12] ~= '' then
  redis.call('ZADD', KEYS[7], text(rev), ARGV[12])
  redis.call('HSET', KEYS[1], 'at', text(rev), 'token', ARGV[12])
end
local forgotten = floor
for i, keep in pairs({[5] = ARGV[5], [7] = ARGV[13]}) do
  local surplus = redis.call('ZCARD', KEYS[i]) - tonumber(keep)
  if surplus > 0 then
    local last = redis.call('ZRANGE', KEYS[i], surplus - 1, surplus - 1, 'WITHSCORES')[2]
    forgotten = math.max(forgotten, tonumber(last))
  end
end
if forgotten > floor then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', text(forgotten))
  redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', '(' .. text(forgotten))
  redis.call('HSET', KEYS[1], 'floor', text(forgotten))
end
for i = first_deletion, first_deletion + 3 * tonumber(ARGV[14]) - 1, 3 do
  redis.call('HSET', KEYS[8], ARGV[i] .. ':' .. ARGV[i + 1], ARGV[i + 2])
  local keys = redis.call('HGET', KEYS[1], 'deletion_keys') or ''
  if not string.find(' ' .. keys .. ' ', ' ' .. ARGV[i] .. ' ', 1, true) then
    redis.call('HSET', KEYS[1], 'deletion_keys', keys .. ' ' .. ARGV[i])
  end
end
for s = 0, spaces - 1 do
  local encoder, dimension = ARGV[15 + 3 * s], ARGV[17 + 3 * s]
  local left = redis.call('HINCRBY', KEYS[6], 'n:' .. encoder, ARGV[16 + 3 * s])
  if left <= 0 then redis.call('HDEL', KEYS[6], 'n:' .. encoder, 'd:' .. encoder)
  elseif dimension ~= '' then redis.call('HSET', KEYS[6], 'd:' .. encoder, dimension) end
end
for o = 0, olds - 1 do redis.call('DEL', KEYS[9 + callers + o]) end
return {'ok', text(rev)}
""")

# ARGV: after which caller ("" for the first), how many, the start of callers' keys.
PAGE = Script("""
local after = '-'
if ARGV[1] ~= '' then after = '(' .. ARGV[1] end
local names = redis.call('ZRANGEBYLEX', KEYS[2], after, '+', 'LIMIT', 0, ARGV[2])
local values = {}
for i, name in ipairs(names) do
  local value, bad = record(ARGV[3] .. name)
  if bad then return bad end
  values[i] = value
end
return {'ok', names, values}
""")

# ARGV: the start of callers' keys, then ids of voiceprints. Gives the callers who have them.
OWNERS = Script("""
local names, values, seen = {}, {}, {}
for i = 2, #ARGV do
  local name = redis.call('HGET', KEYS[3], ARGV[i])
  if name and not seen[name] then
    seen[name] = true
    local value, bad = record(ARGV[1] .. name)
    if bad then return bad end
    names[#names + 1] = name
    values[#names] = value
  end
end
return {'ok', names, values}
""")

# ARGV: after which revision, how many voiceprints at most, but for those of one revision, and the token of
# the revision ("" for 0, and for one of before there were tokens).
CHANGES = Script("""
local since, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
if since < floor or since > rev then return {'none'} end
if ARGV[3] ~= '' then
  if redis.call('ZSCORE', KEYS[7], ARGV[3]) ~= ARGV[1] then return {'none'} end
elseif since > 0 and meta[7] then return {'none'} end
local last = meta[7] or text(rev)
local found = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
local upto = last
local ids = {}
if #found >= 2 * limit then
  upto = found[#found]
  ids = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[1], upto)
else
  for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
end
local token = redis.call('ZRANGEBYSCORE', KEYS[7], upto, upto)[1] or ''
return {'ok', upto, last, redis.call('ZRANGEBYSCORE', KEYS[5], '(' .. ARGV[1], upto), ids, token}
""")

# ARGV: identity, shards. Gives those that hold.
BEGIN = Script("""
if not meta[6] then
  redis.call('HSET', KEYS[1], 'identity', ARGV[1], 'format', '3', 'shards', ARGV[2])
  return {'ok', ARGV[1], ARGV[2]}
end
return {'ok', meta[6], meta[5]}
""")

# ARGV: at least this as the next id of a voiceprint.
RAISE = Script("""
if tonumber(ARGV[1]) > next_id then redis.call('HSET', KEYS[1], 'next_id', ARGV[1]) end
return {'ok'}
""")

# KEYS: the fixed ones. Says that the keys of OpusAgent were taken over.
MARK = Script("""
redis.call('HSET', KEYS[1], 'adopted', '1')
return {'ok'}
""")

# ARGV: names of deletions, each with the time that it is dropped after.
FORGET = Script("""
for i = 1, #ARGV, 2 do
  local time = redis.call('HGET', KEYS[8], ARGV[i])
  if time and time >= ARGV[i + 1] then redis.call('HDEL', KEYS[8], ARGV[i]) end
end
return {'ok'}
""")

# KEYS: any one. ARGV: what it must hold to be removed.
DROP = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'ok'}
""",
    head="",
)

# KEYS: the fixed ones. ARGV: the revision that the repair was worked out on ("" if it is lost), the new
# one, the next id, identity and shards (where they are lost), the token of the new revision, then commands:
# name, key, two arguments.
REPAIR = Script(
    """
if (redis.call('HGET', KEYS[1], 'rev') or '') ~= ARGV[1] then return {'conflict'} end
redis.call('HSET', KEYS[1], 'rev', ARGV[2], 'floor', ARGV[2], 'next_id', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'identity', ARGV[4], 'format', '3', 'shards', ARGV[5], 'adopted', '1')
end
redis.call('HSET', KEYS[1], 'at', ARGV[2], 'token', ARGV[6])
redis.call('DEL', KEYS[7])
redis.call('ZADD', KEYS[7], ARGV[2], ARGV[6])
for i = 7, #ARGV, 4 do
  local key = KEYS[tonumber(ARGV[i + 1])]
  if ARGV[i + 3] == '' then redis.call(ARGV[i], key, ARGV[i + 2])
  else redis.call(ARGV[i], key, ARGV[i + 2], ARGV[i + 3]) end
end
return {'ok'}
""",
    head="",
)
