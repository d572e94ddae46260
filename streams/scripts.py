"""The scripts that change a partition in Redis; each compares what its writer read, and changes all or nothing.

They are called by their digest: redis-py's own Script asks for each pipeline whether the server knows it, a round trip a turn.
"""

from __future__ import annotations

import hashlib
from functools import cache

# KEYS: meta, turns, recalls, changed numbers, then the entry keys that are compared, then one state key a value.
# ARGV: meta as read, meta to write, turns known, count of entries, seconds that entries live, field and value of the recalls ('' for
# none), then two an entry: as read ('' for none) and to write ('' to leave it), then number and state of each changed number.
WRITE_FACTS = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[3]) then return -1 end
local n = tonumber(ARGV[4])
for i = 1, n do if (redis.call('GET', KEYS[4 + i]) or '') ~= ARGV[6 + 2 * i] then return -2 end end
for i = 1, n do
  if ARGV[7 + 2 * i] ~= '' then redis.call('SET', KEYS[4 + i], ARGV[7 + 2 * i], 'EX', ARGV[5]) end
end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[3], ARGV[6], ARGV[7]) end
local at = 8 + 2 * n
for i = 5 + n, #KEYS do
  redis.call('SADD', KEYS[4], ARGV[at])
  redis.call('SET', KEYS[i], ARGV[at + 1])
  at = at + 2
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# KEYS: meta, turns, journal, then one entry key a number. ARGV: meta as read, turns known, seconds an entry lives, journal field,
# journal value, entries. Returns the count of turns.
ADMIT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[2]) then return -1 end
redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
for i = 4, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[3]) end
return redis.call('INCR', KEYS[2])
"""

# KEYS: meta. ARGV: meta as read ('' if there was none), meta to write.
TAKE_OVER = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# KEYS: meta, then one key a value. ARGV: meta as read, seconds that the values live (0: for ever), then the values.
RESTORE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if ARGV[2] == '0' then redis.call('SET', KEYS[i], ARGV[i + 1]) else redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[2]) end
end
return 1
"""

# KEYS: meta, changed numbers, numbers in hand, token. ARGV: the new token. Returns the meta.
BEGIN_CHECKPOINT = """
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[3]) end
redis.call('SET', KEYS[4], ARGV[1])
return redis.call('GET', KEYS[1])
"""

# KEYS: numbers in hand, token. ARGV: our token; another's means that a later checkpoint has taken them over.
END_CHECKPOINT = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
return 1
"""

SCRIPTS = (WRITE_FACTS, ADMIT, TAKE_OVER, RESTORE, BEGIN_CHECKPOINT, END_CHECKPOINT)
#: What WRITE_FACTS returns beside 1 for done: the meta, the count of turns, or an entry is not as it was read.
CHANGED, FORGOT, MOVED = 0, -1, -2


@cache
def digest(script: str) -> str:
    """The name under which Redis knows a script."""
    return hashlib.sha1(script.encode()).hexdigest()  # noqa: S324  # Redis names scripts by their SHA-1
