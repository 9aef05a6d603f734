"""The Lua scripts of the Redis store. The server runs each as one step, without other commands in between.

KEYS of each: the fixed keys of one shard (`Shard.fixed`), then those named below. ARGV[1]: a JSON object, the
`request`; further arguments are bytes. The answer is a list whose first item is "ok", or the reason why
nothing was done: "corrupt" (with the key and the problem), "conflict", "late", "shards".

The server does not undo a script that fails halfway. So all that can fail is checked before the first write:
the types of the keys, the numbers, and changes by others. A server out of memory refuses the first write of a
script if it takes memory, and none after it. So a commit begins with one that takes memory, except for a mere
removal, which must succeed then: it begins by freeing some.

Keys of callers found on the way are built from the tag of the shard, so they are in its slot.
"""

from __future__ import annotations

from voiceprint.storage.records import COUNTER_END, LAST_COUNTED_ID

_HEAD = f"local counter_end, last_counted_id = {COUNTER_END}, {LAST_COUNTED_ID}"
_HEAD += """
local request = cjson.decode(ARGV[1])
local META, NAMES, OWNERS, FEED, TOMBSTONES, SPACES, COMMITS, DELETED, GROUPED, BARE = unpack(KEYS, 1, 10)
local kinds = {'hash', 'zset', 'hash', 'zset', 'zset', 'hash', 'zset', 'hash', 'zset', 'zset'}
local present = false
for i = 1, #kinds do
  local kind = redis.call('TYPE', KEYS[i])['ok']
  if kind ~= 'none' and kind ~= kinds[i] then
    return {'corrupt', KEYS[i], 'is a ' .. kind .. ', and should be a ' .. kinds[i]}
  end
  if i > 1 and kind ~= 'none' then present = true end
end
local names = {'rev', 'floor', 'next_id', 'format', 'shards', 'identity', 'at', 'token', 'encryption'}
local meta = {}
for i, value in ipairs(redis.call('HMGET', META, unpack(names))) do meta[names[i]] = value end
for _, name in ipairs({'rev', 'floor', 'next_id'}) do
  if meta[name] and not (string.match(meta[name], '^%d+$') and #meta[name] < 16) then
    return {'corrupt', META, 'has no whole number where a counter should be'}
  end
end
if present and not meta.rev then
  return {'corrupt', META, 'has lost its counters: repair it by check(fix=True)'}
end
if meta.format and meta.format ~= '2' and meta.format ~= '3' then
  return {'corrupt', META, 'is of another format: it was written by a newer version'}
end
local rev, floor = tonumber(meta.rev or '0'), tonumber(meta.floor or '0')
local next_id = tonumber(meta.next_id or '1')
local function text(number) return string.format('%.0f', number) end
local function record(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return nil, {'corrupt', key, 'holds no record'} end
  return value
end
"""

# KEYS: the callers to load. request: fresh, the number of new ids to reserve; ids, whose owners are wanted.
LOAD = (
    _HEAD
    + """
local values, owners = {}, {}
for i = 11, #KEYS do
  local value, bad = record(KEYS[i])
  if bad then return bad end
  values[i - 10] = value
end
for i, id in ipairs(request.ids) do owners[i] = redis.call('HGET', OWNERS, id) end
local spaces = redis.call('HGETALL', SPACES)
if request.fresh > 0 and next_id <= last_counted_id then
  redis.call('HSET', META, 'next_id', text(next_id + request.fresh))
end
return {'ok', redis.call('TIME'), text(rev), text(floor), text(next_id), meta.shards, meta.identity, spaces,
  owners, values, redis.call('EXISTS', DELETED), meta.encryption or ''}
"""
)

# KEYS: the changed callers, then OpusAgent's keys. ARGV: the request; for each caller the new record without
# its first line ("" to remove it); for each of OpusAgent's keys its value.
# request: until_us, the server's time after which it is too late; identity, shards, adopted; next_id;
# store, the identity that encrypted records are bound to; encryption, the mark ("" without a key); marks,
# whether it is a new one;
# spaces: of {encoder, growth, size ("" if unchanged)};
# removed: ids for the feed; ownerless: those of them that no caller has now;
# token: of the commit, "" if it changes no voiceprint; tombstones, commits: numbers to keep;
# callers: of {id, version (that the change is based on), new (ids of new voiceprints), format, grouped, bare
# (whether the caller is in groups, and is without voiceprints)};
# deletions: of {key, digest, time}.
COMMIT = (
    _HEAD
    + """
local now = redis.call('TIME')
if tonumber(now[1]) * 1000000 + tonumber(now[2]) > request.until_us then return {'late'} end
if meta.shards and meta.shards ~= request.shards then return {'shards', meta.shards} end
if meta.encryption and request.encryption == '' then return {'encrypted'} end
if request.encryption ~= '' and meta.identity and meta.identity ~= request.store then
  return {'conflict'}
end
if rev + 1 >= counter_end then return {'corrupt', META, 'has come to the last revision'} end
local callers = request.callers
local removed = {}
for _, id in ipairs(request.removed) do removed[id] = true end
for _, space in ipairs(request.spaces) do
  local known = redis.call('HMGET', SPACES, 'n:' .. space.encoder, 'd:' .. space.encoder)
  if known[1] and not string.match(known[1], '^-?%d+$') then
    return {'corrupt', SPACES, 'has no whole number where a count should be'}
  end
  if space.size ~= '' and known[1] and tonumber(known[1]) > 0 and known[2] ~= space.size then
    return {'conflict'}
  end
end
local removes_only = true
for i, caller in ipairs(callers) do
  caller.key, caller.body = KEYS[10 + i], ARGV[1 + i]
  local version = redis.pcall('GETRANGE', caller.key, 0, 34)
  if type(version) == 'table' then return {'corrupt', caller.key, 'holds no record'} end
  if version ~= caller.version then return {'conflict'} end
  if caller.body ~= '' then removes_only = false end
  for _, id in ipairs(caller.new) do
    local owner = redis.call('HGET', OWNERS, id)
    if owner and owner ~= caller.id and not removed[id] then return {'conflict'} end
  end
end
for i = 11 + #callers, #KEYS do
  if redis.pcall('GET', KEYS[i]) ~= ARGV[i - 9] then return {'conflict'} end
end
if removes_only then
  for _, caller in ipairs(callers) do redis.call('DEL', caller.key) end
end
rev = rev + 1
redis.call('HSET', META, 'rev', text(rev))
if not meta.identity and request.identity ~= '' then
  redis.call('HSET', META, 'identity', request.identity, 'shards', request.shards)
end
if request.encryption ~= '' and (request.marks or not meta.encryption) then
  redis.call('HSET', META, 'encryption', request.encryption)
end
if meta.format ~= '3' then redis.call('HSET', META, 'format', '3') end
if request.adopted ~= '' then redis.call('HSET', META, 'adopted', request.adopted) end
if tonumber(request.next_id) > next_id then redis.call('HSET', META, 'next_id', request.next_id) end
for _, id in ipairs(request.ownerless) do
  redis.call('HDEL', OWNERS, id)
  redis.call('ZREM', FEED, id)
end
for _, caller in ipairs(callers) do
  if caller.body == '' then
    redis.call('DEL', caller.key)
    redis.call('ZREM', NAMES, caller.id)
    redis.call('ZREM', GROUPED, caller.id)
    redis.call('ZREM', BARE, caller.id)
  else
    local head = caller.format .. ' ' .. string.format('%016.0f', rev) .. ' '
    local checksum = string.sub(redis.sha1hex(head .. caller.body), 1, 16)
    redis.call('SET', caller.key, head .. checksum .. '\\n' .. caller.body)
    if caller.version == '' then redis.call('ZADD', NAMES, 0, caller.id) end
    for key, is_in in pairs({[GROUPED] = caller.grouped, [BARE] = caller.bare}) do
      if is_in then redis.call('ZADD', key, 0, caller.id) else redis.call('ZREM', key, caller.id) end
    end
    for _, id in ipairs(caller.new) do
      redis.call('HSET', OWNERS, id, caller.id)
      redis.call('ZADD', FEED, text(rev), id)
    end
  end
end
for _, id in ipairs(request.removed) do redis.call('ZADD', TOMBSTONES, text(rev), id) end
if request.token ~= '' then
  redis.call('ZADD', COMMITS, text(rev), request.token)
  redis.call('HSET', META, 'at', text(rev), 'token', request.token)
elseif rev == 1 then  -- without it, the position would be that of a store of before commits had tokens
  redis.call('HSET', META, 'at', '0', 'token', '')
end
local forgotten = floor
for key, size in pairs({[TOMBSTONES] = request.tombstones, [COMMITS] = request.commits}) do
  local surplus = redis.call('ZCARD', key) - size
  if surplus > 0 then
    local last = redis.call('ZRANGE', key, surplus - 1, surplus - 1, 'WITHSCORES')[2]
    forgotten = math.max(forgotten, tonumber(last))
  end
end
if forgotten > floor then
  redis.call('ZREMRANGEBYSCORE', TOMBSTONES, '-inf', text(forgotten))
  redis.call('ZREMRANGEBYSCORE', COMMITS, '-inf', '(' .. text(forgotten))
  redis.call('HSET', META, 'floor', text(forgotten))
end
for _, deletion in ipairs(request.deletions) do
  redis.call('HSET', DELETED, deletion.key .. ':' .. deletion.digest, deletion.time)
  local keys = redis.call('HGET', META, 'deletion_keys') or ''
  if not string.find(' ' .. keys .. ' ', ' ' .. deletion.key .. ' ', 1, true) then
    redis.call('HSET', META, 'deletion_keys', keys .. ' ' .. deletion.key)
  end
end
for _, space in ipairs(request.spaces) do
  local left = redis.call('HINCRBY', SPACES, 'n:' .. space.encoder, space.growth)
  if left <= 0 then redis.call('HDEL', SPACES, 'n:' .. space.encoder, 'd:' .. space.encoder)
  elseif space.size ~= '' then redis.call('HSET', SPACES, 'd:' .. space.encoder, space.size) end
end
for i = 11 + #callers, #KEYS do redis.call('DEL', KEYS[i]) end
return {'ok', text(rev)}
"""
)

# request: after, a caller id ("" for the first page); size; base, the start of callers' keys.
PAGE = (
    _HEAD
    + """
local after = '-'
if request.after ~= '' then after = '(' .. request.after end
local found = redis.call('ZRANGEBYLEX', NAMES, after, '+', 'LIMIT', 0, request.size)
local values = {}
for i, name in ipairs(found) do
  local value, bad = record(request.base .. name)
  if bad then return bad end
  values[i] = value
end
return {'ok', found, values}
"""
)

# request: as of PAGE. Returns the number of callers on the page, the last of them, and for each of their
# embedding spaces its name, the length of an embedding, the number of voiceprints, of callers, and of callers
# who have no other space. Reads the line of JSON in each record (format.py), which begins at the 37th byte.
COVERAGE = (
    _HEAD
    + """
local after = '-'
if request.after ~= '' then after = '(' .. request.after end
local found = redis.call('ZRANGEBYLEX', NAMES, after, '+', 'LIMIT', 0, request.size)
local counts = {}
for _, name in ipairs(found) do
  local key = request.base .. name
  local value, bad = record(key)
  if bad then return bad end
  if not value then return {'corrupt', key, 'is listed and does not exist'} end
  local line = string.sub(value, 37, (string.find(value, '\\n', 37, true) or 0) - 1)
  local sound, entry = pcall(cjson.decode, line)
  if not sound or type(entry) ~= 'table' or type(entry.voiceprints) ~= 'table' then
    return {'corrupt', key, 'holds no readable record'}
  end
  local mine, spaces = {}, 0
  for _, one in ipairs(entry.voiceprints) do
    if type(one) ~= 'table' or type(one.encoder) ~= 'string' or type(one.size) ~= 'number' then
      return {'corrupt', key, 'holds no readable record'}
    end
    if not mine[one.encoder] then
      mine[one.encoder], spaces = {one.size, 0}, spaces + 1
    end
    mine[one.encoder][2] = mine[one.encoder][2] + 1
  end
  for space, count in pairs(mine) do
    local sum = counts[space] or {space, 0, 0, 0, 0}
    counts[space] = sum
    sum[2], sum[3], sum[4] = count[1], sum[3] + count[2], sum[4] + 1
    if spaces == 1 then sum[5] = sum[5] + 1 end
  end
end
local answer = {}
for _, sum in pairs(counts) do answer[#answer + 1] = sum end
return {'ok', #found, found[#found] or '', answer}
"""
)

# request: base, the start of callers' keys; ids of voiceprints. Returns the callers who have them.
OWNERS = (
    _HEAD
    + """
local found, values, seen = {}, {}, {}
for _, id in ipairs(request.ids) do
  local name = redis.call('HGET', OWNERS, id)
  if name and not seen[name] then
    seen[name] = true
    local value, bad = record(request.base .. name)
    if bad then return bad end
    found[#found + 1] = name
    values[#found] = value
  end
end
return {'ok', found, values}
"""
)

# request: since, a revision, and its token ("" for revision 0, and for commits without one); limit of
# voiceprints, exceeded only by those of one revision.
CHANGES = (
    _HEAD
    + """
local since = tonumber(request.since)
if since < floor or since > rev then return {'none'} end
if request.token ~= '' then
  if redis.call('ZSCORE', COMMITS, request.token) ~= request.since then return {'none'} end
elseif since > 0 and meta.at then return {'none'} end
local last = meta.at or text(rev)
local start = '(' .. request.since
local found = redis.call('ZRANGEBYSCORE', FEED, start, '+inf', 'WITHSCORES', 'LIMIT', 0, request.limit)
local upto = last
local ids = {}
if #found >= 2 * request.limit then
  upto = found[#found]
  ids = redis.call('ZRANGEBYSCORE', FEED, start, upto)
else
  for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
end
local token = redis.call('ZRANGEBYSCORE', COMMITS, upto, upto)[1] or ''
return {'ok', upto, last, redis.call('ZRANGEBYSCORE', TOMBSTONES, start, upto), ids, token}
"""
)

# request: identity, shards and encryption, stored unless the store has its own. Returns the stored ones.
INIT_STORE = (
    _HEAD
    + """
if not meta.identity then
  redis.call('HSET', META, 'identity', request.identity, 'format', '3', 'shards', request.shards)
  if request.encryption ~= '' then redis.call('HSET', META, 'encryption', request.encryption) end
  return {'ok', request.identity, request.shards}
end
return {'ok', meta.identity, meta.shards}
"""
)

# request: next_id, the least one from now on.
BUMP_NEXT_ID = (
    _HEAD
    + """
if tonumber(request.next_id) > next_id then redis.call('HSET', META, 'next_id', request.next_id) end
return {'ok'}
"""
)

# Notes that the keys of OpusAgent were adopted.
MARK_ADOPTED = (
    _HEAD
    + """
redis.call('HSET', META, 'adopted', '1')
return {'ok'}
"""
)

# request: deletions, of {name, since}; each is dropped if its time is `since` or later.
FORGET_DELETIONS = (
    _HEAD
    + """
for _, deletion in ipairs(request.deletions) do
  local time = redis.call('HGET', DELETED, deletion.name)
  if time and time >= deletion.since then redis.call('HDEL', DELETED, deletion.name) end
end
return {'ok'}
"""
)

# request: before, the revision that the repair is based on ("" if lost); revision, token, next_id, shards;
# identity, a new one if it was lost; commands: of {command, number of its key, argument, ...}.
REPAIR = """
local request = cjson.decode(ARGV[1])
if (redis.call('HGET', KEYS[1], 'rev') or '') ~= request.before then return {'conflict'} end
redis.call('HSET', KEYS[1], 'rev', request.revision, 'floor', request.revision, 'next_id', request.next_id)
if request.identity ~= '' then
  redis.call('HSET', KEYS[1], 'identity', request.identity, 'format', '3', 'shards', request.shards,
    'adopted', '1')
end
redis.call('HSET', KEYS[1], 'at', request.revision, 'token', request.token)
redis.call('DEL', KEYS[7])
redis.call('ZADD', KEYS[7], request.revision, request.token)
for _, command in ipairs(request.commands) do
  redis.call(command[1], KEYS[command[2]], unpack(command, 3))
end
return {'ok'}
"""

# KEYS: any one. ARGV: the value that it must have to be removed.
DELETE_IF_EQUAL = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'ok'}
"""
