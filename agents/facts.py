"""The agents of the fact topics: merge what comes into the state of numbers, in one script with the offset that it was read at.

Order within a batch: misplaced and rejected records are published and acknowledged by the broker; then states and applied offset are
written together; then the offset may be committed. A crash in between repeats work that merges to the same state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any, cast

import structlog

from agents.context import Guard
from agents.rejects import rejected_event
from rules.e164 import masked
from rules.errors import DeliveryFailed, InputError, StateError
from rules.events import NumberEvent, read_event
from rules.facts import NumberFacts
from rules.suspension import suspended_numbers
from streams.partition import Partition
from streams.partitioner import partition_of
from streams.publisher import Output, moved_home
from streams.state import Meta
from streams.topics import REJECTED
from streams.transport import Fetched

log = structlog.get_logger(__name__)

#: On the null by which the finder of a broken record tells another partition to suspend a number: it has been reported already.
FORWARDED = "ringfence-forwarded"
_RETRY_S = 0.2


class FactAgent:
    """Applies one fact topic."""

    def __init__(self, guard: Guard, topic: str) -> None:
        self._guard = guard
        self._topic = topic

    async def run(self, batches: AsyncIterable[Fetched]) -> None:
        """Apply batches as they come, until the stream ends."""
        async for fetched in batches:
            partition = self._guard.ownership.get(fetched.tp.partition)
            if partition is not None:
                await self.apply(partition, fetched)

    async def apply(self, partition: Partition, fetched: Fetched) -> None:
        """Apply one batch, however long Redis or the broker take; give up only when the partition is no longer ours to write.

        A batch that comes too early, before the partition is taken over or behind a gap, is dropped: the topic is read again from the
        offset that is applied.
        """
        sorted_out = _SortedOut(self._guard, self._topic, fetched)
        while partition.ready:
            async with partition.lock:
                if partition.meta is None:
                    return
                if partition.has_gap(self._topic, fetched):
                    await self._guard.ownership.rewind(partition, self._topic, partition.applied(self._topic))
                    return
                if fetched.next_offset <= partition.applied(self._topic):
                    fetched.acknowledge()
                    return
                try:
                    await sorted_out.publish_once()
                    if await self._merge(partition, fetched, sorted_out):
                        fetched.acknowledge()
                        return
                except (StateError, DeliveryFailed) as error:
                    log.warning("facts wait", topic=self._topic, partition=partition.number, reason=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _merge(self, partition: Partition, fetched: Fetched, sorted_out: _SortedOut) -> bool:
        """Merge a batch into the states and write them with the applied offset. Returns whether that was done."""
        mine = cast("Meta", partition.meta)
        numbers = sorted_out.numbers
        seen, states = await self._guard.store.read_facts(partition.number, numbers)
        if seen != mine:
            await self._guard.ownership.reconcile(partition, seen)
            return False
        changed = {number: facts for number, facts in zip(numbers, states, strict=True) if sorted_out.apply_to(number, facts)}
        after = Meta(mine.epoch, mine.incarnation, mine.applied | {self._topic: fetched.next_offset})
        if not await self._guard.store.write_facts(partition.number, mine, after, changed):
            await self._guard.ownership.reconcile(partition, await self._guard.store.meta(partition.number))
            return False
        partition.set_meta(after)
        self._guard.counts[f"applied {self._topic}"] += len(fetched.records)
        return True


class _SortedOut:
    """The records of a batch by what has to happen with them."""

    def __init__(self, guard: Guard, topic: str, fetched: Fetched) -> None:
        self._guard = guard
        self._topic = topic
        self._events: dict[str, list[tuple[NumberEvent, int]]] = {}
        self._suspensions: dict[str, int] = {}
        self._outputs: list[Output] = []
        for record in fetched.records:
            self._sort(record)

    @property
    def numbers(self) -> list[str]:
        """Every number whose state the batch touches."""
        return list(self._events.keys() | self._suspensions.keys())

    def apply_to(self, number: str, facts: NumberFacts) -> bool:
        """Merge what the batch holds for a number into its facts. Returns whether they changed."""
        changed = False
        if number in self._suspensions:
            changed = facts.suspend(self._suspensions[number])
        for event, log_time_ms in self._events.get(number, ()):
            changed = facts.apply(event, log_time_ms) or changed
        return changed

    async def publish_once(self) -> None:
        """Publish misplaced and rejected records, unless that has been done.

        Raises:
            DeliveryFailed: the broker did not acknowledge them; try again.
        """
        if self._outputs:
            await self._guard.publisher.publish(self._outputs)
            self._outputs = []

    def _sort(self, record: Any) -> None:  # aiokafka's record
        guard = self._guard
        sent_home = moved_home(record, self._topic, guard.settings)
        if sent_home is not None:
            guard.counts[f"misplaced {self._topic}"] += 1
            self._outputs.append(sent_home)
            return
        try:
            event, unknown_fields = read_event(self._topic, record.key, record.value)
        except InputError as error:
            self._reject(record, error)
            return
        guard.counts["unknown fields"] += unknown_fields
        fact = cast("NumberEvent", event)
        self._events.setdefault(fact.number, []).append((fact, record.timestamp))

    def _reject(self, record: Any, error: InputError) -> None:  # aiokafka's record
        guard, settings = self._guard, self._guard.settings
        if not _was_forwarded(record):
            guard.counts[f"rejected {self._topic} {error.code}"] += 1
            key, value = rejected_event(record, self._topic, error, guard.clock.now())
            self._outputs.append(Output(settings.topic(REJECTED), record.partition, key, value))
        for number in suspended_numbers(self._topic, record.key, record.value):
            home = partition_of(number.encode(), settings.partitions)
            if home == record.partition:
                log.warning("number suspended", number=masked(number), topic=self._topic, code=error.code)
                self._suspensions[number] = max(record.timestamp, self._suspensions.get(number, 0))
            else:
                # The owner of that partition has to suspend it, because its state is the only one that counts: to it, a null is as
                # broken as the record was, and never too large to be passed on.
                self._outputs.append(Output(settings.topic(self._topic), home, number.encode(), None, [(FORWARDED, b"1")]))


def _was_forwarded(record: Any) -> bool:  # aiokafka's record
    return any(name == FORWARDED for name, _ in record.headers)
