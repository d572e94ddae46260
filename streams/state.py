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

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from redis.exceptions import NoScriptError, RedisError

from config.settings import Settings
from rules.errors import CannotStart, StateError
from streams import redis_client
from streams.kept import (
    Admission,
    Entry,
    FactBatch,
    FactSnapshot,
    Kept,
    Meta,
    Snapshot,
    Written,
    decode_entries,
    pack,
    unpack_journal,
    unpack_meta,
    unpack_offsets,
)
from streams.scripts import (
    ADMIT,
    BEGIN_CHECKPOINT,
    CHANGED,
    END_CHECKPOINT,
    FORGOT,
    MOVED,
    RESTORE,
    SCRIPTS,
    TAKE_OVER,
    WRITE_FACTS,
    digest,
)
from streams.trouble import Trouble

_WRITTEN = {1: Written.DONE, CHANGED: Written.CHANGED, FORGOT: Written.FORGOT, MOVED: Written.MOVED}


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
            for script in SCRIPTS:
                await self._client.script_load(script)
        except (RedisError, OSError) as error:
            raise CannotStart(f"Redis does not take our scripts (RINGFENCE_REDIS): {error}") from None

    def _key(self, partition: int, rest: str) -> str:
        return f"{self._prefix}:{{{partition}}}:{rest}"

    async def meta(self, partition: int) -> Meta | None:
        """What Redis says of a partition; None if it knows nothing of it."""
        raw = await self._answer(self._client.get(self._key(partition, "meta")))
        return unpack_meta(raw) if raw is not None else None

    async def pulses(self, partitions: Sequence[int]) -> dict[int, tuple[Meta | None, int]]:
        """Of each partition its meta and its count of turns, in one MGET."""
        keys = [self._key(partition, name) for partition in partitions for name in ("meta", "t")]
        raw = await self._answer(self._client.mget(keys)) if keys else []
        metas = [unpack_meta(meta) if meta is not None else None for meta in raw[::2]]
        return dict(zip(partitions, zip(metas, (int(turns or 0) for turns in raw[1::2]), strict=True), strict=True))

    async def take_over(self, partition: int, seen: Meta | None, mine: Meta) -> bool:
        """Write the meta of a new owner, unless it has changed since ``seen``. Returns whether it was written."""
        arguments = [pack(seen) if seen is not None else b"", pack(mine)]
        return bool(await self._run(TAKE_OVER, [self._key(partition, "meta")], arguments))

    async def kept(self, partition: int) -> Kept:
        """What a new owner has to know beside states and entries."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hvals(self._key(partition, "j"))
        pipeline.hgetall(self._key(partition, "r"))
        pipeline.get(self._key(partition, "t"))
        pipeline.get(self._key(partition, "o"))
        batches, recalls, turns, outputs = await self._answer(pipeline.execute())
        return Kept(
            {item.offset: item for raw in batches for item in unpack_journal(raw)},
            {field: unpack_journal(raw) for field, raw in recalls.items()},
            int(turns or 0),
            unpack_offsets(outputs) if outputs is not None else {},
        )

    async def trim_journals(self, committed: Mapping[int, int]) -> None:
        """Drop the journalled batches that lie wholly below the committed offsets, by partition."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in committed:
            pipeline.hkeys(self._key(partition, "j"))
        journalled = await self._answer(pipeline.execute())
        for (partition, offset), fields in zip(committed.items(), journalled, strict=True):
            done = [field for field in fields if int(field) < offset]
            if done:
                pipeline.hdel(self._key(partition, "j"), *done)
        await self._answer(pipeline.execute())

    async def note_outputs(self, outputs: Mapping[int, Mapping[str, int]]) -> None:
        """Say, by partition, up to where the output topics are in the entries. Too low an offset only makes a new owner read more."""
        if outputs:
            await self._answer(self._client.mset({self._key(partition, "o"): pack(ends) for partition, ends in outputs.items()}))

    async def recalls_published(self, partition: int, fields: Iterable[bytes]) -> None:
        """The broker has acknowledged the recalls under these fields."""
        await self._answer(self._client.hdel(self._key(partition, "r"), *fields))

    async def read_facts(self, partition: int, numbers: Sequence[str], stopped: Sequence[str] = ()) -> FactSnapshot:
        """The meta of a partition, the facts of some of its numbers, and the entries of those that may have approvals to take back."""
        keys = [self._key(partition, "meta"), *(self._key(partition, f"s:{number}") for number in numbers)]
        keys += [self._key(partition, f"e:{number}") for number in stopped]
        raw_meta, *raw = await self._answer(self._client.mget(keys))
        meta = unpack_meta(raw_meta) if raw_meta is not None else None
        return FactSnapshot(meta, dict(zip(numbers, raw, strict=False)), dict(zip(stopped, raw[len(numbers) :], strict=True)))

    async def write_facts(self, batch: FactBatch) -> Written:
        """Write changed states, the recalls that follow from them and the new applied offsets, all or nothing."""
        partition, compared = batch.partition, batch.compared
        keys = [self._key(partition, name) for name in ("meta", "t", "r", "d")]
        keys += [self._key(partition, f"e:{number}") for number in compared]
        keys += [self._key(partition, f"s:{number}") for number in batch.changed]
        recalls = pack(batch.recalls) if batch.recalls else b""
        arguments: list[bytes | int | str] = [
            pack(batch.seen), pack(batch.after), batch.turns, len(compared), batch.keep_s, batch.field, recalls,
        ]  # fmt: skip
        for number, raw in compared.items():
            entries = batch.entries.get(number)
            arguments += [raw or b"", pack(entries) if entries is not None else b""]
        for number, facts in batch.changed.items():
            arguments += [number, pack(facts)]
        return _WRITTEN[await self._run(WRITE_FACTS, keys, arguments)]

    async def restore(self, partition: int, seen: Meta, values: Mapping[str, bytes], kind: Literal["s", "e"], keep_s: int = 0) -> bool:
        """Put raw states (``s``) or entries (``e``) by number into a partition that is being rebuilt. Returns whether it is still ours.

        ``keep_s`` is how long Redis keeps them, 0: for ever.
        """
        keys = [self._key(partition, "meta"), *(self._key(partition, f"{kind}:{number}") for number in values)]
        return bool(await self._run(RESTORE, keys, [pack(seen), keep_s, *values.values()]))

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
        raw = await self._answer(self._client.evalsha(digest(BEGIN_CHECKPOINT), len(keys), *keys, token))
        numbers = await self._answer(self._client.smembers(self._key(partition, "f")))
        return (unpack_meta(raw) if raw is not None else None), [number.decode() for number in numbers]

    async def end_checkpoint(self, partition: int, token: str) -> None:
        """The numbers that were in hand are in the log now, unless a later checkpoint has taken them over."""
        await self._run(END_CHECKPOINT, [self._key(partition, "f"), self._key(partition, "ft")], [token])

    async def raw_states(self, partition: int, numbers: Sequence[str]) -> tuple[Meta | None, list[bytes | None]]:
        """The meta of a partition and the packed states of some numbers, of one instant."""
        keys = [self._key(partition, "meta"), *(self._key(partition, f"s:{number}") for number in numbers)]
        raw_meta, *states = await self._answer(self._client.mget(keys))
        return (unpack_meta(raw_meta) if raw_meta is not None else None), states

    async def numbers(self) -> AsyncIterator[tuple[int, str]]:
        """Every number that has a state, with its partition; a long look at all keys, which holds nobody up.

        Raises:
            StateError: Redis does not answer.
        """
        shape = re.compile(re.escape(self._prefix) + r":\{(\d+)\}:s:(.+)")
        pattern = _literally(self._prefix) + ":{*}:s:*"
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
            snapshots[partition] = Snapshot(unpack_meta(raw_meta) if raw_meta is not None else None, states)
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
                pack(batch.seen), batch.turns, batch.keep_s, batch.journal[-1].offset, pack(batch.journal),
            ]  # fmt: skip
            arguments += [pack(entries) for entries in batch.entries.values()]
            pipeline.evalsha(digest(ADMIT), len(keys), *keys, *arguments)
        return [int(turns) for turns in await self._answer(pipeline.execute())]

    async def forget(self, partition: int) -> None:
        """Drop all that is kept of a partition but its meta, because the log that it stands for is no more."""
        try:
            for kind in "se":
                pattern = _literally(self._key(partition, f"{kind}:")) + "*"
                async for key in self._client.scan_iter(match=pattern, count=5000):
                    await self._client.unlink(key)
            await self._client.unlink(*(self._key(partition, name) for name in ("j", "t", "r", "o", "d", "f", "ft")))
        except (RedisError, OSError) as error:
            raise StateError(f"Redis does not answer: {error}") from None

    async def _run(self, script: str, keys: list[str], arguments: Sequence[bytes | int | str]) -> int:
        return int(await self._answer(self._client.evalsha(digest(script), len(keys), *keys, *arguments)))

    async def _answer(self, awaitable: Any) -> Any:  # redis-py types its commands as sync or async
        try:
            return await awaitable
        except NoScriptError:
            for script in SCRIPTS:
                await self._client.script_load(script)
            raise StateError("Redis did not know our scripts; it has been told, try again") from None
        except (RedisError, OSError) as error:
            self.trouble.met()
            raise StateError(f"Redis does not answer: {error}") from None


def _literally(text: str) -> str:
    """A text as part of a pattern of Redis, in which none of its characters means anything else."""
    return re.sub(r"([\[\]*?\\])", r"\\\1", text)
