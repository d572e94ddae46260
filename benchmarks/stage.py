"""A guard with many numbers in its state, and requests about them: what most parts measure on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import redis.asyncio as redis

from benchmarks.bulk import Record, producer_for, put
from benchmarks.contenders import RINGFENCE, Contender, Running
from benchmarks.servers import PARTITIONS, Place, say
from benchmarks.sizes import Sizes
from benchmarks.waiting import until
from benchmarks.workload import Workload
from config.settings import Settings
from ops.day import Event
from rules.events import REFERENCE_MODELS
from streams.partitioner import partition_of
from streams.state import Store
from streams.topics import ensure_topics

# A larger batch of a topic that has few facts would hold them back from those of the same number in others.
_BATCH_BYTES = 64_000
_SETTLED_WITHIN_S = 3600.0
_CHECKPOINT_S = 2.0  # while facts are loaded; the usual 10 s would be waited for at the end
_TELL_EVERY_S = 15.0
_UNLINKED_AT_ONCE = 5_000


class Stage:
    """The guard's topics, state and workload, in a place of their own."""

    def __init__(self, place: Place, sizes: Sizes, numbers: int) -> None:
        self._place = place
        self.settings = place.settings(RINGFENCE.name)
        self.workload = Workload(sizes.seed, numbers, sizes.requests, PARTITIONS)
        self._facts = 0

    async def load(self, others: Mapping[Contender, Settings] | None = None) -> None:
        """Put reference data and facts on Kafka, and have a worker write the state.

        Args:
            others: get the topics that they read filled as well.
        """
        readers = {RINGFENCE: self.settings, **(others or {})}
        for settings in readers.values():
            await ensure_topics(settings)
        began = time.monotonic()
        producer = producer_for(self.settings, _BATCH_BYTES)
        often = self.settings.model_copy(update={"checkpoint_s": _CHECKPOINT_S})
        with self.started(RINGFENCE, often) as worker:
            await until(worker.says_ready, "the worker is ready", worker.check)
            async with producer:
                await put(producer, _routed(self._told(self.workload.records()), readers))
            say(f"{self._facts:,} facts generated and written in {time.monotonic() - began:.0f} s")
            await settled(self.settings, self._facts, worker.check)
        say(f"applied, and in a checkpoint, after {time.monotonic() - began:.0f} s")

    def worker(self, name: str = RINGFENCE.name) -> Running:
        """Start a worker of the guard."""
        return self.started(RINGFENCE, self.settings, name)

    def started(self, contender: Contender, settings: Settings, name: str | None = None) -> Running:
        """Start anybody, at the instant at which the workload begins."""
        return Running(contender, settings, self.workload.clock_start_s, self._place.folder, name)

    async def forget_decisions(self) -> None:
        """Drop what the guard remembers of requests, so that every repeat begins with facts alone."""
        async with redis.Redis.from_url(self.settings.redis.get_secret_value()) as client:
            for kind in ("e:*", "j"):
                keys = [key async for key in client.scan_iter(match=f"{self.settings.redis_prefix}:{{*}}:{kind}", count=5000)]
                for start in range(0, len(keys), _UNLINKED_AT_ONCE):
                    await client.unlink(*keys[start : start + _UNLINKED_AT_ONCE])

    def _told(self, events: Iterable[Event]) -> Iterator[Event]:
        """Count facts on their way, and say now and then how far it is."""
        said = time.monotonic()
        for event in events:
            self._facts += event.topic not in REFERENCE_MODELS
            yield event
            if time.monotonic() - said > _TELL_EVERY_S:
                said = time.monotonic()
                say(f"  {self._facts:,} facts generated")


async def settled(settings: Settings, facts: int, check: Callable[[], None]) -> None:
    """Wait until so many facts are applied and no number has changed since its last checkpoint: what follows is not measured with it.

    Raises:
        TimeoutError: it takes an hour.
    """
    marks = [f"{settings.redis_prefix}:{{{partition}}}:{name}" for partition in range(PARTITIONS) for name in ("d", "f")]
    store, said = Store(settings), time.monotonic()
    async with redis.Redis.from_url(settings.redis.get_secret_value()) as client:

        async def all_in() -> bool:
            nonlocal said
            applied = await applied_in(store)
            if time.monotonic() - said > _TELL_EVERY_S:
                said = time.monotonic()
                say(f"  {applied:,} of {facts:,} facts applied")
            return applied >= facts and not await client.exists(*marks)

        try:
            await until(all_in, f"{facts:,} facts are applied and in a checkpoint", check, within_s=_SETTLED_WITHIN_S, every_s=0.25)
        finally:
            await store.close()


async def applied_in(store: Store) -> int:
    """How many facts are applied in all partitions of a guard's state."""
    pulses = await store.pulses(range(PARTITIONS))
    return sum(sum(meta.applied.values()) for meta, _ in pulses.values() if meta is not None)


def _routed(events: Iterable[Event], readers: Mapping[Contender, Settings]) -> Iterator[Record]:
    """Every event for everybody who reads its topic."""
    for event in events:
        key, value = event.key.encode(), event.encoded()
        partition = 0 if event.topic in REFERENCE_MODELS else partition_of(key, PARTITIONS)
        for reader, settings in readers.items():
            if event.topic in reader.reads:
                yield Record(settings.topic(event.topic), partition, key, value)
