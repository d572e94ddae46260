"""The state of numbers in Redis: a view of Kafka's facts, written by one owner a partition.

Keys of partition p share the hash tag ``{p}``:

* ``PREFIX:{p}:meta``       one :class:`Meta`: epoch, incarnation, applied offset per fact topic
* ``PREFIX:{p}:s:NUMBER``   the number's facts (``rules.facts.NumberFacts`` as msgpack)
* ``PREFIX:{p}:e:NUMBER``   its entry: the decisions of the last request_memory and its live approvals, with expiry
* ``PREFIX:{p}:j``          the journal: decided batches by their last input offset, without expiry
* ``PREFIX:{p}:t``          how many turns have been admitted
* ``PREFIX:{p}:r``          recalls that may not have been published yet, by the batch of facts that they come from
* ``PREFIX:{p}:o``          up to where the output topics are known to the entries
* ``PREFIX:{p}:d``, ``:f``, ``:ft``  numbers changed since the last checkpoint; those that a checkpoint has in hand, and its token

Every write is one script that compares the whole meta with what the writer read and does nothing if it differs. So state and applied
offsets change together; a former owner, whose epoch is older, can change nothing; and a decision cannot be stored against state that
an objection has meanwhile changed. The count of turns shows that Redis was rolled back where the meta alone would not: decisions
change it and leave the meta as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec
from redis.exceptions import NoScriptError, RedisError

from config.settings import Settings
from rules.errors import CannotStart, StateError
from rules.facts import NumberFacts
from rules.instants import SECOND
from streams import redis_client
from streams.trouble import Trouble

# Scripts are called by their digest: redis-py's own Script asks for each pipeline whether the server knows it, a round trip a turn.
# KEYS: meta, turns, recalls, changed numbers, then the entry keys that are compared, then one state key a value.
# ARGV: meta as read, meta to write, turns known, count of entries, seconds that entries live, field and value of the recalls ('' for
# none), then two an entry: as read ('' for none) and to write ('' to leave it), then number and state of each changed number.
_WRITE_FACTS = """
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
_ADMIT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[2]) then return -1 end
redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
for i = 4, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[3]) end
return redis.call('INCR', KEYS[2])
"""

# KEYS: meta. ARGV: meta as read ('' if there was none), meta to write.
_TAKE_OVER = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# KEYS: meta, then one key a value. ARGV: meta as read, seconds that the values live (0: for ever), then the values.
_RESTORE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if ARGV[2] == '0' then redis.call('SET', KEYS[i], ARGV[i + 1]) else redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[2]) end
end
return 1
"""

# KEYS: meta, changed numbers, numbers in hand, token. ARGV: the new token. Returns the meta.
_BEGIN_CHECKPOINT = """
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[3]) end
redis.call('SET', KEYS[4], ARGV[1])
return redis.call('GET', KEYS[1])
"""

# KEYS: numbers in hand, token. ARGV: our token; another's means that a later checkpoint has taken them over.
_END_CHECKPOINT = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
return 1
"""

_SCRIPTS = (_WRITE_FACTS, _ADMIT, _TAKE_OVER, _RESTORE, _BEGIN_CHECKPOINT, _END_CHECKPOINT)
_CHANGED, _FORGOT, _MOVED = 0, -1, -2


@cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()  # noqa: S324  # Redis names scripts by their SHA-1


class Meta(msgspec.Struct, array_like=True, frozen=True):
    """What Redis says of a partition.

    ``epoch`` grows with every change of owner; ``incarnation`` with every rebuild from nothing; ``applied`` is the next offset of each
    fact topic (name without prefix) whose effect is in the state.
    """

    epoch: int
    incarnation: int
    applied: dict[str, int]

    def is_behind(self, other: Meta) -> bool:
        """Whether it stands for less than another one of the same owner."""
        if (self.epoch, self.incarnation) < (other.epoch, other.incarnation):
            return True
        return any(self.applied.get(topic, 0) < offset for topic, offset in other.applied.items())


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One decision as it was published, by which a repeated request is answered and an approval taken back.

    ``fingerprint`` tells a repeat from a request of the same id with other content; empty where that is not known any more. Instants
    are microseconds; ``valid_until`` is that of the approval, also after its recall, and 0 where there was none. ``offset`` is the
    input offset; ``subject`` what the request was about, None also where that is not known any more.
    """

    request_id: str
    fingerprint: bytes
    approved: bool
    decided_at: int
    valid_until: int
    record: bytes
    offset: int = 0
    subject: str | None = None

    def remembered(self, now: int, memory_s: int) -> bool:
        """Whether a repeated request is still answered with it."""
        return self.decided_at > now - memory_s * SECOND or self.valid_until > now


class Journalled(msgspec.Struct, array_like=True, frozen=True):
    """A decision or recall that is, or is about to be, published: by input offset."""

    offset: int
    approved: bool
    number: str
    record: bytes
    fingerprint: bytes = b""


class Kept(NamedTuple):
    """What Redis keeps of a partition beside states and entries.

    ``journal`` by input offset; ``recalls`` by field; ``turns`` admitted so far; ``outputs``: next offset of each output topic (name
    without prefix) whose records are in the entries, empty if that is not known.
    """

    journal: dict[int, Journalled]
    recalls: dict[bytes, list[Journalled]]
    turns: int
    outputs: dict[str, int]


class Written(Enum):
    """What became of a write."""

    DONE = auto()
    CHANGED = auto()  # the meta is another one than was read
    FORGOT = auto()  # Redis knows of fewer turns than were admitted: it was rolled back
    MOVED = auto()  # an entry has changed since it was read: read again


_encode = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(Meta).decode
_decode_facts = msgspec.msgpack.Decoder(NumberFacts).decode
_decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode
_decode_journal = msgspec.msgpack.Decoder(list[Journalled]).decode
_decode_offsets = msgspec.msgpack.Decoder(dict[str, int]).decode
_WRITTEN = {1: Written.DONE, _CHANGED: Written.CHANGED, _FORGOT: Written.FORGOT, _MOVED: Written.MOVED}


class Store:
    """Redis, as the agents use it. Every method raises :class:`StateError` when Redis does not answer in time."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.redis_prefix
        self._client = redis_client.from_settings(settings)
        self.trouble = Trouble()

    async def close(self) -> None:
        """Let go of the connections."""
        await redis_client.close(self._client)

    async def check(self) -> None:
        """Refuse a Redis that would drop state by itself, is a replica or a cluster, and teach it our scripts.

        Raises:
            CannotStart: with what is wrong and the remedy.
        """
        await redis_client.check(self._client, self._prefix)
        try:
            for script in _SCRIPTS:
                await self._client.script_load(script)
        except (RedisError, OSError) as error:
            raise CannotStart(f"Redis does not take our scripts (RINGFENCE_REDIS): {error}") from None

    def _key(self, partition: int, rest: str) -> str:
        return f"{self._prefix}:{{{partition}}}:{rest}"

    async def meta(self, partition: int) -> Meta | None:
        """What Redis says of a partition; None if it knows nothing of it."""
        raw = await self._answer(self._client.get(self._key(partition, "meta")))
        return _decode_meta(raw) if raw is not None else None

    async def pulses(self, partitions: Sequence[int]) -> dict[int, tuple[Meta | None, int]]:
        """Of each partition its meta and its count of turns, in one MGET."""
        keys = [self._key(partition, name) for partition in partitions for name in ("meta", "t")]
        raw = await self._answer(self._client.mget(keys)) if keys else []
        metas = [_decode_meta(meta) if meta is not None else None for meta in raw[::2]]
        return dict(zip(partitions, zip(metas, (int(turns or 0) for turns in raw[1::2]), strict=True), strict=True))

    async def take_over(self, partition: int, seen: Meta | None, mine: Meta) -> bool:
        """Write the meta of a new owner, unless it has changed since ``seen``. Returns whether it was written."""
        arguments = [_encode(seen) if seen is not None else b"", _encode(mine)]
        return bool(await self._run(_TAKE_OVER, [self._key(partition, "meta")], arguments))

    async def kept(self, partition: int) -> Kept:
        """What a new owner has to know beside states and entries."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hvals(self._key(partition, "j"))
        pipeline.hgetall(self._key(partition, "r"))
        pipeline.get(self._key(partition, "t"))
        pipeline.get(self._key(partition, "o"))
        batches, recalls, turns, outputs = await self._answer(pipeline.execute())
        return Kept(
            {item.offset: item for raw in batches for item in _decode_journal(raw)},
            {field: _decode_journal(raw) for field, raw in recalls.items()},
            int(turns or 0),
            _decode_offsets(outputs) if outputs is not None else {},
        )

    async def trim_journal(self, partition: int, committed: int) -> None:
        """Drop the journalled batches that lie wholly below the committed offset."""
        key = self._key(partition, "j")
        fields = await self._answer(self._client.hkeys(key))
        done = [field for field in fields if int(field) < committed]
        if done:
            await self._answer(self._client.hdel(key, *done))

    async def note_outputs(self, partition: int, ends: Mapping[str, int]) -> None:
        """Say up to where the output topics are in the entries. Too low an offset only makes a new owner read more."""
        await self._answer(self._client.set(self._key(partition, "o"), _encode(ends)))

    async def recalls_published(self, partition: int, fields: Iterable[bytes]) -> None:
        """The broker has acknowledged the recalls under these fields."""
        await self._answer(self._client.hdel(self._key(partition, "r"), *fields))

    async def read_facts(self, partition: int, numbers: Sequence[str], stopped: Sequence[str] = ()) -> FactSnapshot:
        """The meta of a partition, the facts of some of its numbers, and the entries of those that may have approvals to take back."""
        keys = [self._key(partition, "meta"), *(self._key(partition, f"s:{number}") for number in numbers)]
        keys += [self._key(partition, f"e:{number}") for number in stopped]
        raw_meta, *raw = await self._answer(self._client.mget(keys))
        meta = _decode_meta(raw_meta) if raw_meta is not None else None
        return FactSnapshot(meta, dict(zip(numbers, raw, strict=False)), dict(zip(stopped, raw[len(numbers) :], strict=True)))

    async def write_facts(self, batch: FactBatch) -> Written:
        """Write changed states, the recalls that follow from them and the new applied offsets, all or nothing."""
        partition, compared = batch.partition, batch.compared
        keys = [self._key(partition, name) for name in ("meta", "t", "r", "d")]
        keys += [self._key(partition, f"e:{number}") for number in compared]
        keys += [self._key(partition, f"s:{number}") for number in batch.changed]
        recalls = _encode(batch.recalls) if batch.recalls else b""
        arguments: list[bytes | int | str] = [
            _encode(batch.seen), _encode(batch.after), batch.turns, len(compared), batch.keep_s, batch.field, recalls,
        ]  # fmt: skip
        for number, raw in compared.items():
            entries = batch.entries.get(number)
            arguments += [raw or b"", _encode(entries) if entries is not None else b""]
        for number, facts in batch.changed.items():
            arguments += [number, _encode(facts)]
        return _WRITTEN[await self._run(_WRITE_FACTS, keys, arguments)]

    async def restore(self, partition: int, seen: Meta, values: Mapping[str, bytes], kind: Literal["s", "e"], keep_s: int = 0) -> bool:
        """Put raw states (``s``) or entries (``e``) by number into a partition that is being rebuilt. Returns whether it is still ours.

        ``keep_s`` is how long Redis keeps them, 0: for ever.
        """
        keys = [self._key(partition, "meta"), *(self._key(partition, f"{kind}:{number}") for number in values)]
        return bool(await self._run(_RESTORE, keys, [_encode(seen), keep_s, *values.values()]))

    async def read_entries(self, partition: int, numbers: Sequence[str]) -> dict[str, list[Entry]]:
        """The entries of some numbers, for a rebuild; one that cannot be read counts as none and is written anew."""
        raw = await self._answer(self._client.mget([self._key(partition, f"e:{number}") for number in numbers])) if numbers else []
        found = {}
        for number, one in zip(numbers, raw, strict=True):
            with suppress(StateError):
                found[number] = decode_entries(one)
        return found

    async def begin_checkpoint(self, partition: int, token: str) -> tuple[Meta | None, list[str]]:
        """Take the numbers that changed since the last checkpoint in hand.

        Returns:
            The meta of the same instant, and the numbers: all that changed below its applied offsets since the last checkpoint.
        """
        keys = [self._key(partition, name) for name in ("meta", "d", "f", "ft")]
        raw = await self._answer(self._client.evalsha(_digest(_BEGIN_CHECKPOINT), len(keys), *keys, token))
        numbers = await self._answer(self._client.smembers(self._key(partition, "f")))
        return (_decode_meta(raw) if raw is not None else None), [number.decode() for number in numbers]

    async def end_checkpoint(self, partition: int, token: str) -> None:
        """The numbers that were in hand are in the log now, unless a later checkpoint has taken them over."""
        await self._run(_END_CHECKPOINT, [self._key(partition, "f"), self._key(partition, "ft")], [token])

    async def raw_states(self, partition: int, numbers: Sequence[str]) -> tuple[Meta | None, list[bytes | None]]:
        """The meta of a partition and the packed states of some numbers, of one instant."""
        keys = [self._key(partition, "meta"), *(self._key(partition, f"s:{number}") for number in numbers)]
        raw_meta, *states = await self._answer(self._client.mget(keys))
        return (_decode_meta(raw_meta) if raw_meta is not None else None), states

    async def numbers(self) -> AsyncIterator[tuple[int, str]]:
        """Every number that has a state, with its partition; a long look at all keys, which holds nobody up.

        Raises:
            StateError: Redis does not answer.
        """
        shape = re.compile(re.escape(self._prefix) + r":\{(\d+)\}:s:(.+)")
        pattern = re.sub(r"([\[\]*?\\])", r"\\\1", self._prefix) + ":{*}:s:*"
        try:
            async for key in self._client.scan_iter(match=pattern, count=5000):
                found = shape.fullmatch(key.decode())
                if found is not None:
                    yield int(found[1]), found[2]
        except (RedisError, OSError) as error:
            raise StateError(f"Redis does not answer: {error}") from None

    async def read_for_turn(self, asked: Mapping[int, Sequence[str]]) -> dict[int, Snapshot]:
        """Everything that deciding about the numbers of some partitions needs, in one MGET."""
        keys, layout = [], []
        for partition, numbers in asked.items():
            keys.append(self._key(partition, "meta"))
            keys += [self._key(partition, f"{kind}:{number}") for number in numbers for kind in "se"]
            layout.append((partition, numbers))
        raw = iter(await self._answer(self._client.mget(keys)))
        snapshots = {}
        for partition, numbers in layout:
            raw_meta = next(raw)
            states = {number: (next(raw), next(raw)) for number in numbers}
            snapshots[partition] = Snapshot(_decode_meta(raw_meta) if raw_meta is not None else None, states)
        return snapshots

    async def admit(self, batches: Iterable[Admission]) -> list[int]:
        """Store the decisions of some partitions, each unless its meta has changed since it was read.

        Returns:
            For each, how many turns have been admitted; 0 if the meta has changed, less if Redis was rolled back.
        """
        pipeline = self._client.pipeline(transaction=False)
        for batch in batches:
            keys = [self._key(batch.partition, name) for name in ("meta", "t", "j")]
            keys += [self._key(batch.partition, f"e:{number}") for number in batch.entries]
            arguments: list[bytes | int] = [
                _encode(batch.seen), batch.turns, batch.keep_s, batch.journal[-1].offset, _encode(batch.journal),
            ]  # fmt: skip
            arguments += [_encode(entries) for entries in batch.entries.values()]
            pipeline.evalsha(_digest(_ADMIT), len(keys), *keys, *arguments)
        return [int(turns) for turns in await self._answer(pipeline.execute())]

    async def forget(self, partition: int) -> None:
        """Drop all that is kept of a partition but its meta, because the log that it stands for is no more."""
        try:
            for kind in "se":
                pattern = re.sub(r"([\[\]*?\\])", r"\\\1", self._key(partition, f"{kind}:")) + "*"
                async for key in self._client.scan_iter(match=pattern, count=5000):
                    await self._client.unlink(key)
            await self._client.unlink(*(self._key(partition, name) for name in ("j", "t", "r", "o", "d", "f", "ft")))
        except (RedisError, OSError) as error:
            raise StateError(f"Redis does not answer: {error}") from None

    async def _run(self, script: str, keys: list[str], arguments: Sequence[bytes | int | str]) -> int:
        return int(await self._answer(self._client.evalsha(_digest(script), len(keys), *keys, *arguments)))

    async def _answer(self, awaitable: Any) -> Any:  # redis-py types its commands as sync or async
        try:
            return await awaitable
        except NoScriptError:
            for script in _SCRIPTS:
                await self._client.script_load(script)
            raise StateError("Redis did not know our scripts; it has been told, try again") from None
        except (RedisError, OSError) as error:
            self.trouble.met()
            raise StateError(f"Redis does not answer: {error}") from None


class Snapshot:
    """What one MGET said of a partition: its meta, and per number the raw state and entry."""

    __slots__ = ("_states", "meta")

    def __init__(self, meta: Meta | None, states: dict[str, tuple[bytes | None, bytes | None]]) -> None:
        self.meta = meta
        self._states = states

    def facts(self, number: str) -> NumberFacts:
        """The facts of a number.

        Raises:
            StateError: they cannot be read; the caller blocks.
        """
        raw = self._states[number][0]
        try:
            return NumberFacts() if raw is None else _decode_facts(raw)
        except msgspec.MsgspecError:
            raise StateError("the state of a number cannot be read") from None

    def entries(self, number: str) -> list[Entry]:
        """The recent decisions about a number.

        Raises:
            StateError: they cannot be read; the caller must not decide a second time.
        """
        return decode_entries(self._states[number][1])


class FactSnapshot:
    """What one MGET said for a batch of facts: the meta, raw states by number, raw entries of the numbers that may be stopped."""

    __slots__ = ("_states", "meta", "raw_entries")

    def __init__(self, meta: Meta | None, states: dict[str, bytes | None], raw_entries: dict[str, bytes | None]) -> None:
        self.meta = meta
        self._states = states
        self.raw_entries = raw_entries

    def facts(self, number: str) -> NumberFacts:
        """The facts of a number.

        Raises:
            StateError: they cannot be read.
        """
        raw = self._states[number]
        try:
            return NumberFacts() if raw is None else _decode_facts(raw)
        except msgspec.MsgspecError as error:
            raise StateError(f"the state of a number cannot be read: {error}") from None

    def entries(self, number: str) -> list[Entry]:
        """The recent decisions about a number that may be stopped.

        Raises:
            StateError: they cannot be read; the facts have to wait, because an approval may hide there.
        """
        return decode_entries(self.raw_entries[number])


class FactBatch(msgspec.Struct):
    """Facts of one partition, merged and ready to be written.

    ``changed`` holds the new states; ``compared`` the raw entries as they were read, which must still be there; ``entries`` those of
    them that change; ``recalls`` what has to be published then, kept under ``field`` until it is; ``turns`` how many were admitted at
    least; ``keep_s`` how long Redis keeps the entries; ``stopped_ms`` when the log took in the stops behind the recalls.
    """

    partition: int
    seen: Meta
    after: Meta
    turns: int
    field: bytes
    changed: dict[str, NumberFacts]
    compared: dict[str, bytes | None]
    entries: dict[str, list[Entry]]
    recalls: list[Journalled]
    keep_s: int
    stopped_ms: list[int]


def decode_entries(raw: bytes | None) -> list[Entry]:
    """The decisions in a raw entry.

    Raises:
        StateError: they cannot be read.
    """
    try:
        return [] if raw is None else _decode_entries(raw)
    except msgspec.MsgspecError:
        raise StateError("the entry of a number cannot be read") from None


def keep_entries_s(entries: Iterable[Entry], now: int, memory_s: int) -> int:
    """How long Redis has to keep some entries: the request memory, and two seconds more than an approval among them is valid."""
    last = max((entry.valid_until for entry in entries), default=0)
    return max(memory_s, (last - now) // SECOND + 3)


class Admission(msgspec.Struct):
    """Decisions of one partition to be stored before they are published.

    ``journal`` is in order of input offset; ``entries`` holds, for each decided number, all of its decisions that are still remembered;
    ``turns`` is how many were admitted before, at least; ``keep_s`` is how long Redis keeps the entries.
    """

    partition: int
    seen: Meta
    turns: int
    journal: list[Journalled]
    entries: dict[str, list[Entry]]
    keep_s: int
