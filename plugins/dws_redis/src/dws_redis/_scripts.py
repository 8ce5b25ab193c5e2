"""What runs inside Redis. Each script touches the keys of one partition, in one atomic step.

Keys of a partition, behind its base: `m` hash (`e` epoch, `s` offset of the last record, `f` floor, `run` the server's
incarnation), `i` sorted set (topic -> offset of its last record), `h:<topic>` stream of its records, `r:<node>` ring of the
last answers to a node, `k:…` receipts by key, and the channel `c`. Numbers beyond 10^14 need `%.0f`: Lua's own form cuts them.

The command that publishes is an argument: `PUBLISH`, or `SPUBLISH` in a cluster. There, `KEYS` names all that is written: while
some of it is being moved to another server, the script is refused before it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from typing import Final


@dataclass(frozen=True)
class Script:
    """A script and the digest by which it is called."""

    source: str

    @cached_property
    def digest(self) -> str:
        """SHA-1, as `EVALSHA` wants it."""
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()


PUBLISH: Final = Script("""
-- KEYS m i r …  ARGV base, publisher, ring size, PUBLISH, the last epoch and offset that the publisher was given,
-- then 7 for each: seq topic payload size ttl_ms key key_ttl_ms
local base, publisher, width = ARGV[1], ARGV[2], tonumber(ARGV[3])
local m = redis.call('hmget', KEYS[1], 'e', 's', 'f')
if not m[1] then return redis.error_reply('NOFENCE the log has no epoch') end
local e, s, floor = m[1], tonumber(m[2]), m[3]
if s > tonumber(floor) and redis.call('exists', KEYS[2]) == 0 then return redis.error_reply('NOFENCE the index is gone') end
if e == ARGV[5] and s < tonumber(ARGV[6]) then return redis.error_reply('NOFENCE the log has gone back') end
local now = redis.call('time')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local lo, reserved, out, push, ring = s, s, {e}, {}, {}
for a = 7, #ARGV, 7 do
  local seq, topic, payload, key = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 5]
  local size, ttl = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  local field, repeatable = seq % width, size > 0 or key ~= ''
  local answer, receipt
  if repeatable then
    local q, before = string.match(redis.call('hget', KEYS[3], field) or '', '^(%d+) (.*)$')
    if q == seq then answer, repeatable = before, false end  -- carried out before: nothing is written
  end
  if not answer and key ~= '' then
    receipt = base .. 'k:' .. #topic .. ':' .. topic .. ':' .. key
    local first = redis.call('get', receipt)
    if first then answer = 'k' .. first end
  end
  if not answer then
    local offset, prev = '-', '0'
    if size > 0 then
      if reserved == lo then  -- the first write: refused where there is no memory; if the script ends early, this leaves a hole
        reserved = lo + (#ARGV - a + 1) / 7
        redis.call('hset', KEYS[1], 's', string.format('%.0f', reserved))
      end
      s = s + 1
      offset = string.format('%.0f', s)
      prev = redis.call('zscore', KEYS[2], topic)
      redis.call('zadd', KEYS[2], offset, topic)
      local stream = base .. 'h:' .. topic
      if prev then prev = string.format('%.0f', prev)
      else prev = floor; redis.call('del', stream) end  -- of a log that is no more, if there is one
      local fields = {'d', payload, 'p', prev, 'n', publisher, 'q', seq,
                      't', string.format('%.0f', ms), 'x', string.format('%.0f', ms + ttl)}
      if key ~= '' then fields[#fields + 1] = 'k'; fields[#fields + 1] = key end
      redis.call('xadd', stream, 'MAXLEN', size, offset .. '-0', unpack(fields))
      redis.call('pexpire', stream, ttl)
    end
    push[#push + 1] = offset .. ' ' .. prev .. ' ' .. seq .. ' ' .. #topic .. ' ' .. #payload .. ' ' .. #key .. '\\n'
    push[#push + 1] = topic
    push[#push + 1] = payload
    push[#push + 1] = key
    answer = 'n' .. offset
    if receipt then redis.call('set', receipt, e .. ' ' .. offset, 'PX', ARGV[a + 6]) end
  end
  if repeatable then
    ring[#ring + 1] = field
    ring[#ring + 1] = seq .. ' ' .. answer
  end
  out[#out + 1] = answer
end
if s < reserved then redis.call('hset', KEYS[1], 's', string.format('%.0f', s)) end
if #ring > 0 then
  redis.call('hset', KEYS[3], unpack(ring))
  redis.call('pexpire', KEYS[3], 3600000)
end
if #push > 0 then
  local head = e .. string.format(' %.0f %.0f %.0f ', lo, s, ms) .. publisher .. '\\n'
  redis.call(ARGV[4], base .. 'c', head .. table.concat(push))
end
if s > lo then
  for _ = 1, 2 * (s - lo) + 2 do  -- forget the topics published longest ago, if nothing of them is kept
    local oldest = redis.call('zrange', KEYS[2], 0, 0, 'WITHSCORES')
    -- pcall: refused while a cluster moves these keys; what is stored above is stored, and this can wait
    if not oldest[1] or redis.pcall('exists', base .. 'h:' .. oldest[1]) ~= 0 then break end
    redis.call('zrem', KEYS[2], oldest[1])
    redis.call('hset', KEYS[1], 'f', string.format('%.0f', oldest[2]))
  end
end
return out
""")
"""Store and publish the messages of a tick."""

PROBE: Final = Script("""
-- KEYS m of each partition  ARGV publisher, PUBLISH, base of each partition
for n = 1, #KEYS do
  local m = redis.call('hmget', KEYS[n], 'e', 's', 'f')
  if not m[1] then return redis.error_reply('NOFENCE the log has no epoch') end
  -- pcall: refused while a cluster moves this key
  if tonumber(m[2]) > tonumber(m[3]) and redis.pcall('exists', ARGV[n + 2] .. 'i') == 0 then
    return redis.error_reply('NOFENCE the index is gone')
  end
  redis.call(ARGV[2], ARGV[n + 2] .. 'c', m[1] .. ' ' .. m[2] .. ' ' .. m[2] .. ' 0 ' .. ARGV[1] .. '\\n')
end
return #KEYS
""")
"""Say through the log itself where it ends: a sign of life, and the proof that the last message came."""

FENCE: Final = Script("""
-- KEYS m, i of a partition  ARGV incarnation, new epoch, 1: what this incarnation found is trusted,
-- then epoch and offset of places in the log that the node has seen
local m = redis.call('hmget', KEYS[1], 'e', 's', 'run', 'f')
if not m[1] then
  redis.call('del', KEYS[2])
  redis.call('hset', KEYS[1], 'e', ARGV[2], 's', 0, 'f', 0, 'run', ARGV[1])
  return 1
end
local s = tonumber(m[2])
local whole = s <= tonumber(m[4]) or redis.call('exists', KEYS[2]) == 1
for a = 4, #ARGV, 2 do
  if ARGV[a] == m[1] and s < tonumber(ARGV[a + 1]) then whole = false end
end
if whole and m[3] == ARGV[1] then return 0 end
if whole and ARGV[3] == '1' then
  redis.call('hset', KEYS[1], 'run', ARGV[1])
else
  redis.call('hset', KEYS[1], 'e', ARGV[2], 'f', m[2], 'run', ARGV[1])
end
return 1
""")
"""Give a log that was not written to by this incarnation of the server a new epoch, unless it is known to be whole.

One of whose keys Redis has evicted is not whole (as soon as a topic has a record, the index `i` is there), nor one that ends
before a place that the node has seen. Runs before the first publish of every connection: nobody can write to a log that
went back in time as if nothing were.
"""

ALL: Final = (PUBLISH, PROBE, FENCE)
