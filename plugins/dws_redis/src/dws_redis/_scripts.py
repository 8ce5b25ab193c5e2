"""The scripts that run inside Redis. Each script uses the keys of one partition, in one atomic step.

The keys of a partition start with its base. `m` is a hash (`e` epoch, `s` offset of the last record, `f` floor, `run`
incarnation of the server). `i` is a sorted set (topic -> offset of its last record). `h:<topic>` is the stream of the
topic's records, `r:<node>` the ring of the last results for a node, and `k:…` a receipt by key. `c` is the channel.
Numbers above 10^14 are formatted with `%.0f`, because Lua's default format loses digits.

The publishing command is an argument: `PUBLISH`, or `SPUBLISH` in a cluster. In a cluster, `KEYS` contains all written
keys, so that Redis refuses the script before it starts while some of the keys are being moved to another server.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from typing import Final


@dataclass(frozen=True)
class Script:
    """A script and its digest."""

    source: str

    @cached_property
    def digest(self) -> str:
        """The SHA-1 digest, the argument of `EVALSHA`."""
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()


PUBLISH: Final = Script("""
-- KEYS m i r …  ARGV base, publisher, ring size, PUBLISH, epoch and offset of the publisher's last receipt,
-- then 7 for each message: seq topic payload size ttl_ms key key_ttl_ms
local base, publisher, width = ARGV[1], ARGV[2], tonumber(ARGV[3])
local m = redis.call('hmget', KEYS[1], 'e', 's', 'f')
if not m[1] then return redis.error_reply('NOFENCE the log has no epoch') end
local e, s, floor = m[1], tonumber(m[2]), m[3]
if s > tonumber(floor) and redis.call('exists', KEYS[2]) == 0 then
  return redis.error_reply('NOFENCE the index is missing')
end
if e == ARGV[5] and s < tonumber(ARGV[6]) then return redis.error_reply('NOFENCE the log was set back') end
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
    if q == seq then answer, repeatable = before, false end  -- executed before: write nothing
  end
  if not answer and key ~= '' then
    receipt = base .. 'k:' .. #topic .. ':' .. topic .. ':' .. key
    local first = redis.call('get', receipt)
    if first then answer = 'k' .. first end
  end
  if not answer then
    local offset, prev = '-', '0'
    if size > 0 then
      if reserved == lo then
        -- The first write fails if Redis is out of memory. If the script ends early after it, the log has a hole.
        reserved = lo + (#ARGV - a + 1) / 7
        redis.call('hset', KEYS[1], 's', string.format('%.0f', reserved))
      end
      s = s + 1
      offset = string.format('%.0f', s)
      prev = redis.call('zscore', KEYS[2], topic)
      redis.call('zadd', KEYS[2], offset, topic)
      local stream = base .. 'h:' .. topic
      if prev then prev = string.format('%.0f', prev)
      else prev = floor; redis.call('del', stream) end  -- remove the stream of an earlier log, if any
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
  for _ = 1, 2 * (s - lo) + 2 do  -- forget the least recently published topics without records
    local oldest = redis.call('zrange', KEYS[2], 0, 0, 'WITHSCORES')
    -- pcall: fails while a cluster moves these keys. The records above are stored, and a later call forgets the topics
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
  -- pcall: fails while a cluster moves this key
  if tonumber(m[2]) > tonumber(m[3]) and redis.pcall('exists', ARGV[n + 2] .. 'i') == 0 then
    return redis.error_reply('NOFENCE the index is missing')
  end
  redis.call(ARGV[2], ARGV[n + 2] .. 'c', m[1] .. ' ' .. m[2] .. ' ' .. m[2] .. ' 0 ' .. ARGV[1] .. '\\n')
end
return #KEYS
""")
"""Publish the end of each log on its channel. This proves that the connection works and that no message is missing."""

FENCE: Final = Script("""
-- KEYS m, i of a partition  ARGV incarnation, new epoch, 1 if this incarnation is trusted to have lost nothing,
-- then epoch and offset of each position in the log that the node has seen
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
"""Start a new epoch in a log that is incomplete, or that an untrusted other incarnation of the server has written.

A log is incomplete if Redis has evicted one of its keys (the index `i` exists as soon as a topic has a record), or if
it ends before a position that the node has seen. The script runs before the first publish of every connection, so that
no node writes to a log that was set back without noticing.
"""

ALL: Final = (PUBLISH, PROBE, FENCE)
