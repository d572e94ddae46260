"""The agents of the fact topics: merge what comes into the state of numbers, in one script with the offset that it was read at.

Order within a batch: misplaced and rejected records are published and acknowledged by the broker; then states, the recalls that follow
and the applied offset are written together; then the recalls are published; then the offset may be committed. A crash before the write
repeats work that merges to the same state, a crash after it leaves recalls in Redis that the next owner publishes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from itertools import chain
from typing import Any, NamedTuple, cast

import structlog

from agents.context import Guard
from agents.recalls import Recalls, publish_recalls
from agents.rejects import rejection
from rules.e164 import masked
from rules.errors import DeliveryFailed, InputError, StateError
from rules.events import NumberEvent, read_event
from rules.facts import NumberFacts
from rules.recall import Stop, stop_of
from rules.suspension import suspended_numbers
from streams.kept import FactBatch, FactSnapshot, Meta, Written, keep_entries_s
from streams.partition import Partition
from streams.partitioner import partition_of
from streams.publisher import Output, moved_home
from streams.tasks import Tasks
from streams.transport import Fetched

log = structlog.get_logger(__name__)

#: On the null by which the finder of a broken record tells another partition to suspend a number: it has been reported already.
FORWARDED = "ringfence-forwarded"
_RETRY_S, _MOST_RETRY_S = 0.2, 3.0


class FactAgent:
    """Applies one fact topic."""

    def __init__(self, guard: Guard, topic: str, fail: Callable[[BaseException], None]) -> None:
        self._guard = guard
        self._topic = topic
        self._tasks = Tasks(fail)
        #: Partitions that wait for Redis or the broker; whether batches of them have been dropped meanwhile.
        self._held_up: dict[Partition, bool] = {}

    async def run(self, batches: AsyncIterable[Fetched]) -> None:
        """Apply batches as they come, until the stream ends.

        A partition that Redis or the broker hold up is finished apart, and holds up no other. What comes for it meanwhile is dropped:
        the topic is read again then.
        """
        try:
            async for fetched in batches:
                partition = self._guard.ownership.get(fetched.tp.partition)
                if partition is None:
                    continue
                if partition in self._held_up:
                    self._held_up[partition] = True
                    continue
                sorted_out = _SortedOut(self._guard, self._topic, fetched)
                if not await self._apply(partition, fetched, sorted_out):
                    self._held_up[partition] = False
                    self._tasks.start(self._finish(partition, fetched, sorted_out))
        finally:
            self._tasks.cancel()

    async def _finish(self, partition: Partition, fetched: Fetched, sorted_out: _SortedOut) -> None:
        """Apply a batch that could not be applied at once, however long Redis or the broker take."""
        pause_s = _RETRY_S
        try:
            await asyncio.sleep(pause_s)
            while not await self._apply(partition, fetched, sorted_out):
                # Redis comes back for all; a record that the broker refuses waits for an operator.
                pause_s = min(2 * pause_s, _MOST_RETRY_S) if sorted_out.unpublished else _RETRY_S
                await asyncio.sleep(pause_s)
        finally:
            dropped = self._held_up.pop(partition)
        if dropped and partition.ready:
            await self._guard.ownership.rewind(partition, self._topic, partition.applied(self._topic))

    async def _apply(self, partition: Partition, fetched: Fetched, sorted_out: _SortedOut) -> bool:
        """Try to apply one batch. Returns whether it is done with: applied, or no longer wanted.

        A batch that comes too early, before the partition is taken over or behind a gap, is dropped: the topic is read again from the
        offset that is applied.
        """
        if not await self._wanted(partition, fetched):
            return True
        try:
            await sorted_out.publish()
            async with partition.lock:
                if not await self._wanted(partition, fetched):
                    return True
                if not await self._merge(partition, fetched, sorted_out):
                    return False
        except (StateError, DeliveryFailed) as error:
            log.warning("facts wait", topic=self._topic, partition=partition.number, reason=str(error))
            return False
        fetched.acknowledge()
        return True

    async def _wanted(self, partition: Partition, fetched: Fetched) -> bool:
        """Whether a batch is the next one to be applied."""
        if not partition.ready:
            return False
        if partition.has_gap(self._topic, fetched):
            await self._guard.ownership.rewind(partition, self._topic, partition.applied(self._topic))
            return False
        if fetched.next_offset <= partition.applied(self._topic):
            fetched.acknowledge()
            return False
        return True

    async def _merge(self, partition: Partition, fetched: Fetched, sorted_out: _SortedOut) -> bool:
        """Merge a batch into the states and publish what it recalls. Returns whether that was done."""
        guard, store = self._guard, self._guard.store
        with partition.publishing():
            while True:
                mine = cast("Meta", partition.meta)
                seen = await store.read_facts(partition.number, sorted_out.numbers, sorted_out.stopped)
                if seen.meta != mine:
                    await guard.ownership.reconcile(partition, seen.meta)
                    return False
                batch = self._merged(partition, mine, fetched, sorted_out, seen)
                written = await store.write_facts(batch)
                if written is not Written.MOVED:  # otherwise a turn has just admitted an approval: look at it too
                    break
            if written is Written.FORGOT:
                guard.ownership.forgot(partition, mine)
                return False
            if written is Written.CHANGED:
                await guard.ownership.reconcile(partition, await store.meta(partition.number))
                return False
            partition.set_meta(batch.after)
            guard.counts[f"applied {self._topic}"] += len(fetched.records)
            return await publish_recalls(guard, partition, batch)

    def _merged(self, partition: Partition, mine: Meta, fetched: Fetched, sorted_out: _SortedOut, seen: FactSnapshot) -> FactBatch:
        """A batch merged into what was read."""
        guard = self._guard
        after = Meta(mine.epoch, mine.incarnation, mine.applied | {self._topic: fetched.next_offset})
        recalls = Recalls(guard, guard.as_of(after))
        # What may have been applied before, by an owner that has not got its recalls out, says nothing by changing no state.
        is_replay = fetched.first_offset < partition.replaying_until.get(self._topic, 0)
        changed = {}
        for number in sorted_out.numbers:
            facts = seen.facts(number)
            merged = sorted_out.apply_to(number, facts)
            if merged.changed:
                changed[number] = facts
            stops = merged.stops if is_replay else merged.new_stops
            if stops:
                recalls.meet(number, seen.entries(number), stops)
        every_entry = chain.from_iterable(recalls.entries.values())
        return FactBatch(
            partition=partition.number,
            seen=mine,
            after=after,
            turns=partition.turns,
            field=f"{self._topic}:{fetched.next_offset}".encode(),
            changed=changed,
            compared=seen.raw_entries,
            entries=recalls.entries,
            recalls=recalls.items,
            keep_s=keep_entries_s(every_entry, guard.clock.now(), guard.settings.request_memory_s),
            stopped_ms=recalls.stopped_ms,
        )


class _Merged(NamedTuple):
    """What merging did to a number: whether its state changed, the stops among its facts, and those that were new to it."""

    changed: bool
    stops: list[Stop]
    new_stops: list[Stop]


class _SortedOut:
    """The records of a batch by what has to happen with them."""

    def __init__(self, guard: Guard, topic: str, fetched: Fetched) -> None:
        self._guard = guard
        self._topic = topic
        self._events: dict[str, list[tuple[NumberEvent, int, Stop | None]]] = {}
        self._suspensions: dict[str, Stop] = {}
        self._stopped: set[str] = set()
        self.unpublished: list[Output] = []
        for record in fetched.records:
            self._sort(record)

    @property
    def numbers(self) -> list[str]:
        """Every number whose state the batch touches."""
        return list(self._events.keys() | self._suspensions.keys())

    @property
    def stopped(self) -> list[str]:
        """The numbers whose approvals the batch may take back."""
        return list(self._stopped)

    def apply_to(self, number: str, facts: NumberFacts) -> _Merged:
        """Merge what the batch holds for a number into its facts."""
        changed, stops, new_stops = False, [], []
        found: list[tuple[bool, Stop | None]] = []
        suspension = self._suspensions.get(number)
        if suspension is not None:
            found.append((facts.suspend(suspension.log_time_ms), suspension))
        found += [(facts.apply(event, log_time_ms), stop) for event, log_time_ms, stop in self._events.get(number, ())]
        for is_new, stop in found:
            changed = changed or is_new
            if stop is not None:
                stops.append(stop)
                if is_new:
                    new_stops.append(stop)
        return _Merged(changed, stops, new_stops)

    async def publish(self) -> None:
        """Publish those misplaced and rejected records that the broker has not acknowledged yet.

        Raises:
            DeliveryFailed: it did not acknowledge them all; try again.
        """
        try:
            await self._guard.publisher.publish(self.unpublished)
        except DeliveryFailed as error:
            self.unpublished = list(error.undelivered)
            self._guard.counts.update(error.refusals)
            raise
        self.unpublished = []

    def _sort(self, record: Any) -> None:  # aiokafka's record
        guard = self._guard
        sent_home = moved_home(record, self._topic, guard.settings)
        if sent_home is not None:
            guard.counts[f"misplaced {self._topic}"] += 1
            self.unpublished.append(sent_home)
            return
        try:
            event, unknown_fields = read_event(self._topic, record.key, record.value)
        except InputError as error:
            self._reject(record, error)
            return
        guard.counts["unknown fields"] += unknown_fields
        fact = cast("NumberEvent", event)
        stop = stop_of(fact, self._topic, record.offset, record.timestamp)
        self._events.setdefault(fact.number, []).append((fact, record.timestamp, stop))
        if stop is not None:
            self._stopped.add(fact.number)

    def _reject(self, record: Any, error: InputError) -> None:  # aiokafka's record
        guard, settings = self._guard, self._guard.settings
        if not _was_forwarded(record):
            guard.counts[f"rejected {self._topic} {error.code}"] += 1
            self.unpublished.append(rejection(settings, record, self._topic, error, guard.clock.now()))
        for number in suspended_numbers(self._topic, record.key, record.value):
            home = partition_of(number.encode(), settings.partitions)
            if home == record.partition:
                log.warning("number suspended", number=masked(number), topic=self._topic, code=error.code)
                # The last one of a batch: log times do not run backwards.
                self._suspensions[number] = Stop(self._topic, record.offset, record.timestamp)
                self._stopped.add(number)
            else:
                # The owner of that partition has to suspend it, because its state is the only one that counts: to it, a null is as
                # broken as the record was, and never too large to be passed on.
                self.unpublished.append(Output(settings.topic(self._topic), home, number.encode(), None, [(FORWARDED, b"1")]))


def _was_forwarded(record: Any) -> bool:  # aiokafka's record
    return any(name == FORWARDED for name, _ in record.headers)
