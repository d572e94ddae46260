"""Taking partitions over, giving them up, and noticing that Redis forgot (protocol of a partition: ownership, take-over, rebuild).

An owner raises the epoch in the partition's meta to its consumer group generation, so that whatever a former owner still does is
refused; then it fills in what Redis does not know (``streams.recovery``) and reads the facts again from the offsets that the state
stands for. Until that is done nothing is decided. An owner that finds Redis behind what it wrote itself begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any

import structlog
from faust.types import TP

from config.settings import Settings
from rules.errors import DeliveryFailed, Fenced, StateError
from rules.events import FACT_MODELS, REQUEST_TOPIC
from streams.barrier import Ends
from streams.kept import Meta
from streams.partition import Partition
from streams.recovery import Recovery
from streams.state import Store
from streams.tasks import Tasks
from streams.timings import Timings

log = structlog.get_logger(__name__)

_RETRY_S = 0.5
_LOOK_EVERY_S = 0.5
#: So many live checks, half a second apart, must still find us assigned before a higher epoch is taken for that of a group that is no
#: more. A worker that was stopped past its session learns within one heartbeat (2 s) that it owns nothing.
_CHECKS_BEFORE_LOWERING = 20


class Ownership:
    """The partitions that this worker owns."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        recovery: Recovery,
        rewind: Callable[[TP, int], Coroutine[Any, Any, None]],
        timings: Timings,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._recovery = recovery
        self._rewind = rewind
        self._timings = timings
        self._fail = fail
        self._partitions: dict[int, Partition] = {}
        self._tasks = Tasks(fail)

    def get(self, number: int) -> Partition | None:
        """The partition of a number if we own it."""
        return self._partitions.get(number)

    @property
    def all(self) -> list[Partition]:
        """Every partition that we own, whether taken over yet or not."""
        return list(self._partitions.values())

    def assigned(self, partitions: Iterable[int], generation: int) -> None:
        """Begin to take partitions over; returns at once."""
        for number in partitions:
            partition = self._partitions[number] = Partition(number)
            self._tasks.start(self._take_over(partition, generation))

    def revoked(self) -> None:
        """Give everything up: what is still under way for a partition finds it revoked, and Redis refuses what it writes."""
        for partition in self._partitions.values():
            partition.revoked = True
            partition.wake()
        self._partitions.clear()

    async def stop(self) -> None:
        """Give everything up and end what is under way."""
        self.revoked()
        await asyncio.gather(*self._tasks.cancel(), return_exceptions=True)

    async def rewind(self, partition: Partition, topic: str, offset: int) -> None:
        """Read a topic (name without prefix) of a partition again from an offset, because something in between was not delivered."""
        log.info("reading again", topic=topic, partition=partition.number, offset=offset)
        await self._rewind(TP(self._settings.topic(topic), partition.number), offset)

    async def unstick(self, partition: Partition, ends: Ends) -> None:
        """Read the fact topics that lag again from what is applied: nothing has come of them although the log goes on.

        Faust's own seeks at a rebalance can land after ours; the batches in between would be waited for until the next fact comes.
        """
        for topic in FACT_MODELS:
            if partition.applied(topic) < ends.of(topic, partition.number):
                await self.rewind(partition, topic, partition.applied(topic))

    async def reconcile(self, partition: Partition, seen: Meta | None) -> None:
        """Redis does not say of a partition what we wrote last: we were replaced, and leave; or it forgot, and we read again."""
        mine = partition.meta
        if mine is None or partition.revoked:
            return
        if seen is not None and seen.epoch > mine.epoch:
            partition.revoked = True
            partition.wake()
            self._fail(Fenced(f"partition {partition.number} has an owner of epoch {seen.epoch}, we are of {mine.epoch}"))
            return
        self.forgot(partition, seen)

    def forgot(self, partition: Partition, seen: Meta | None) -> None:
        """Redis is behind what we wrote: lost, rolled back or replaced. Nothing is decided until the partition is whole again."""
        mine = partition.meta
        if mine is None or partition.revoked:
            return
        log.warning(
            "Redis forgot; the partition is rebuilt from Kafka",
            partition=partition.number,
            applied=mine.applied,
            found=seen.applied if seen is not None else None,
        )
        partition.rebuilding = True
        partition.set_meta(None)
        self._tasks.start(self._take_over(partition, mine.epoch))

    async def watch(self) -> None:
        """Look after Redis until cancelled, so that what it forgot is rebuilt before a request has to wait for it."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            with suppress(StateError):  # whoever needs an answer says that there is none
                await self._look()

    async def _look(self) -> None:
        known = {partition: (partition.meta, partition.turns) for partition in self._partitions.values()}
        pulses = await self._store.pulses([partition.number for partition, (meta, _) in known.items() if meta is not None])
        for partition, (meta, turns) in known.items():
            if meta is None or partition.meta is None or partition.meta.incarnation != meta.incarnation:
                continue
            seen, seen_turns = pulses[partition.number]
            if seen is None or seen.epoch != meta.epoch or seen.is_behind(meta) or seen_turns < turns:
                await self.reconcile(partition, seen)

    async def _take_over(self, partition: Partition, generation: int) -> None:
        started, refusals = monotonic(), 0
        while not partition.revoked:
            try:
                seen = await self._store.meta(partition.number)
                if seen is not None and seen.epoch > generation and refusals < _CHECKS_BEFORE_LOWERING:
                    refusals += 1
                    partition.doing = f"waits: an owner of epoch {seen.epoch} was here, we are of {generation}"
                elif await self._recovery.recover(partition, seen, generation):
                    timing = self._timings.rebuild if partition.rebuilding else self._timings.take_over
                    timing.took(monotonic() - started)
                    partition.rebuilding = False
                    await self._read_facts_again(partition)
                    return
            except (StateError, DeliveryFailed) as error:
                partition.doing = f"cannot be taken over yet: {error}"
                log.warning("a partition cannot be taken over yet", partition=partition.number, reason=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _read_facts_again(self, partition: Partition) -> None:
        for topic in FACT_MODELS:
            if partition.meta is None:
                break  # forgotten again meanwhile; the next take-over reads everything again
            await self._rewind(TP(self._settings.topic(topic), partition.number), partition.applied(topic))


def request_partitions(settings: Settings, assigned: Iterable[TP]) -> list[int]:
    """The partitions of call-requests among what was assigned."""
    return sorted(tp.partition for tp in assigned if tp.topic == settings.topic(REQUEST_TOPIC))
