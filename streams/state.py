"""The state of numbers in Redis: a view of Kafka's facts, written by one owner a partition.

Keys of partition p share the hash tag ``{p}``:

* ``PREFIX:{p}:meta``       one :class:`Meta`: epoch, incarnation, applied offset per fact topic
* ``PREFIX:{p}:s:NUMBER``   the number's facts (``rules.facts.NumberFacts`` as msgpack)
* ``PREFIX:{p}:e:NUMBER``   its entry: the decisions of the last request_memory, with expiry
* ``PREFIX:{p}:j``          the journal: decided batches by their last input offset, without expiry

Every write is one script that compares the whole meta with what the writer read and does nothing if it differs. So state and applied
offsets change together; a former owner, whose epoch is older, can change nothing; and a decision cannot be stored against state that
an objection has meanwhile changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, RedisError

from config.settings import Settings
from rules.errors import CannotStart, StateError
from rules.facts import NumberFacts
from streams import redis_client
from streams.trouble import Trouble

# Scripts are called by their digest: redis-py's own Script asks for each pipeline whether the server knows it, a round trip a turn.
# KEYS: meta, then one key a value. ARGV: meta as read, meta to write, then the values.
_WRITE_FACTS = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# KEYS: meta, journal, then one entry key a number. ARGV: meta as read, seconds an entry lives, journal field, journal value, entries.
_ADMIT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
for i = 3, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2]) end
return 1
"""

# KEYS: meta. ARGV: meta as read ('' if there was none), meta to write.
_TAKE_OVER = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


_SCRIPTS = (_WRITE_FACTS, _ADMIT, _TAKE_OVER)


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


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One decision as it was published, by which a repeated request is answered.

    ``fingerprint`` tells a repeat from a request of the same id with other content. Instants are microseconds; ``valid_until`` is
    0 on a blocked record.
    """

    request_id: str
    fingerprint: bytes
    approved: bool
    decided_at: int
    valid_until: int
    record: bytes


#: A journalled record: input offset, approved, the number and the decision's bytes.
Journalled = tuple[int, bool, str, bytes]

_encode = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(Meta).decode
_decode_facts = msgspec.msgpack.Decoder(NumberFacts).decode
_decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode
_decode_journal = msgspec.msgpack.Decoder(list[Journalled]).decode


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

    async def take_over(self, partition: int, seen: Meta | None, mine: Meta) -> bool:
        """Write the meta of a new owner, unless it has changed since ``seen``. Returns whether it was written."""
        arguments = [_encode(seen) if seen is not None else b"", _encode(mine)]
        return await self._run(_TAKE_OVER, [self._key(partition, "meta")], arguments)

    async def journal(self, partition: int) -> dict[int, Journalled]:
        """Every decision that may not have been published or committed yet, by input offset."""
        batches = await self._answer(self._client.hvals(self._key(partition, "j")))
        return {item[0]: item for raw in batches for item in _decode_journal(raw)}

    async def trim_journal(self, partition: int, committed: int) -> None:
        """Drop the journalled batches that lie wholly below the committed offset."""
        key = self._key(partition, "j")
        fields = await self._answer(self._client.hkeys(key))
        done = [field for field in fields if int(field) < committed]
        if done:
            await self._answer(self._client.hdel(key, *done))

    async def read_facts(self, partition: int, numbers: Sequence[str]) -> tuple[Meta | None, list[NumberFacts]]:
        """The meta of a partition and the facts of some of its numbers.

        Raises:
            StateError: Redis does not answer, or holds something that cannot be read.
        """
        keys = [self._key(partition, "meta"), *(self._key(partition, f"s:{number}") for number in numbers)]
        raw_meta, *raw_states = await self._answer(self._client.mget(keys))
        meta = _decode_meta(raw_meta) if raw_meta is not None else None
        try:
            return meta, [NumberFacts() if raw is None else _decode_facts(raw) for raw in raw_states]
        except msgspec.MsgspecError as error:
            self.trouble.met()
            raise StateError(f"partition {partition} holds state that cannot be read: {error}") from None

    async def write_facts(self, partition: int, seen: Meta, after: Meta, changed: Mapping[str, NumberFacts]) -> bool:
        """Write changed states together with the new applied offsets, unless the meta has changed since it was read."""
        keys = [self._key(partition, "meta"), *(self._key(partition, f"s:{number}") for number in changed)]
        arguments = [_encode(seen), _encode(after), *(_encode(facts) for facts in changed.values())]
        return await self._run(_WRITE_FACTS, keys, arguments)

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

    async def admit(self, batches: Iterable[Admission]) -> list[bool]:
        """Store the decisions of some partitions, each unless its meta has changed since it was read."""
        pipeline = self._client.pipeline(transaction=False)
        for batch in batches:
            keys = [self._key(batch.partition, "meta"), self._key(batch.partition, "j")]
            keys += [self._key(batch.partition, f"e:{number}") for number in batch.entries]
            arguments: list[bytes | int] = [_encode(batch.seen), batch.keep_s, batch.journal[-1][0], _encode(batch.journal)]
            arguments += [_encode(entries) for entries in batch.entries.values()]
            pipeline.evalsha(_digest(_ADMIT), len(keys), *keys, *arguments)
        return [bool(admitted) for admitted in await self._answer(pipeline.execute())]

    async def forget(self, partition: int) -> None:
        """Drop the states of a partition and its journal, whose offsets mean nothing any more, before it is rebuilt from nothing."""
        pattern = re.sub(r"([\[\]*?\\])", r"\\\1", self._key(partition, "s:")) + "*"
        try:
            async for key in self._client.scan_iter(match=pattern, count=5000):
                await self._client.unlink(key)
            await self._client.unlink(self._key(partition, "j"))
        except (RedisError, OSError) as error:
            raise StateError(f"Redis does not answer: {error}") from None

    async def _run(self, script: str, keys: list[str], arguments: list[bytes]) -> bool:
        return bool(await self._answer(self._client.evalsha(_digest(script), len(keys), *keys, *arguments)))

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
        raw = self._states[number][1]
        try:
            return [] if raw is None else _decode_entries(raw)
        except msgspec.MsgspecError:
            raise StateError("the entry of a number cannot be read") from None


class Admission(msgspec.Struct):
    """Decisions of one partition to be stored before they are published.

    ``journal`` is in order of input offset; ``entries`` holds, for each decided number, all of its decisions that are still remembered;
    ``keep_s`` is how long Redis keeps them.
    """

    partition: int
    seen: Meta
    journal: list[Journalled]
    entries: dict[str, list[Entry]]
    keep_s: int
