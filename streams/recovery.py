"""What a new owner does with a partition before it may decide: find out what Redis knows, fill in what it does not, read facts again.

Redis intact, or rolled back to an older snapshot: states and applied offsets are of one instant, so the facts after them bring the
states up to date; and what was published after the outputs that Redis knows of is read from the output topics into the entries. Redis
empty: states come from the last checkpoint, entries from the outputs of the last minutes. Either way facts are read again from the
earliest offset that an approval still valid was decided with, so that no objection after it is without its recall.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog
from aiokafka import TopicPartition

from config.settings import Settings
from rules.errors import StateError
from rules.events import FACT_MODELS, REQUEST_TOPIC
from rules.instants import SECOND, format_instant
from streams.barrier import Barrier
from streams.checkpoints import Checkpoints
from streams.kept import Entry, Journalled, Kept, Meta, keep_entries_s, pack
from streams.log_reader import LogReader
from streams.outputs import OutputLog, Published, matters, output_of, take_in, unpublished
from streams.partition import Partition
from streams.publisher import Publisher
from streams.state import Store

log = structlog.get_logger(__name__)

#: For clocks that differ and publishes that were slow.
_MARGIN_S = 60
_REPORT_EVERY_S = 2.0
_REFERENCES_WITHIN_S = 30.0
_CHUNK = 100


class Recovery:
    """Makes partitions fit to be decided about.

    Args:
        settings: topics and times.
        store: Redis.
        barrier: where the fact topics end.
        publisher: for recalls that a former owner did not get out.
        reader: for call requests.
        outputs: the output topics.
        checkpoints: the states.
        committed: next offset of a partition of call-requests that the consumer group has committed, None if there is none.
        now: the guard's clock.
        valid_s: how long after its decision an approval may be valid at most, in seconds.
    """

    def __init__(  # noqa: PLR0913  # what a take-over touches
        self,
        settings: Settings,
        *,
        store: Store,
        barrier: Barrier,
        publisher: Publisher,
        reader: LogReader,
        outputs: OutputLog,
        checkpoints: Checkpoints,
        committed: Callable[[int], Awaitable[int | None]],
        now: Callable[[], int],
        valid_s: int,
    ) -> None:
        self._settings = settings
        self._store = store
        self._barrier = barrier
        self._publisher = publisher
        self._reader = reader
        self._outputs = outputs
        self._checkpoints = checkpoints
        self._committed = committed
        self._now = now
        self._window_s = max(settings.request_memory_s, valid_s) + _MARGIN_S

    async def recover(self, partition: Partition, seen: Meta | None, epoch: int) -> bool:
        """Make a partition ours if Redis still says what we saw, and whole. Returns whether that was done.

        Raises:
            StateError: Redis or the broker does not answer.
            DeliveryFailed: the broker did not take a recall.
        """
        if partition.number >= self._settings.partitions:
            return await self._take_surplus(partition, seen, epoch)
        started = monotonic()
        ends = await self._barrier.ends([partition.number])
        ended = {topic: ends.of(topic, partition.number) for topic in FACT_MODELS}
        is_foreign = seen is not None and any(seen.applied.get(topic, 0) > end for topic, end in ended.items())
        # A rebuild that came to no end leaves a meta with nothing applied.
        is_empty = seen is None or not seen.applied or is_foreign
        applied = {} if seen is None or is_empty else seen.applied
        partition.rebuilding = partition.rebuilding or (is_empty and any(ended.values()))
        mine = Meta(epoch, max(time.time_ns(), seen.incarnation + 1 if seen is not None else 0), applied)
        if not await self._store.take_over(partition.number, seen, mine):
            return False
        if is_foreign:
            log.warning("state of a log that is no more is dropped", partition=partition.number)
            await self._store.forget(partition.number)
        kept = await self._store.kept(partition.number)
        await self._publish_recalls(partition, kept)
        partition.doing = "waits for what is being published"
        await partition.quiet()
        if is_empty:
            applied = await self._fill(partition, mine, ended)
        # What is in the log by now may have been applied before, by a former owner or in the states of its checkpoint.
        ends = await self._barrier.ends([partition.number])
        partition.doing = "waits for parties, campaigns and caller numbers"
        await self._barrier.references_reached(ends, _REFERENCES_WITHIN_S)  # recalls look brands up
        committed = await self._committed(partition.number) or 0
        journal, decided_from = await self._read_outputs(partition, mine, kept, committed, is_empty=is_empty)
        applied = {topic: min(offset, decided_from.get(topic, offset)) for topic, offset in applied.items()}
        after = Meta(epoch, mine.incarnation, applied)
        if not await self._store.take_over(partition.number, mine, after):
            return False
        partition.journal = journal
        partition.turns = kept.turns
        if partition.next_request is None:
            partition.next_request = committed
        partition.replaying_until = {topic: ends.of(topic, partition.number) for topic in FACT_MODELS}
        # The state is ours before its topics are read again: agents drop what comes while it is not, and nobody would bring it back.
        partition.set_meta(after)
        log.info(
            "partition taken over",
            partition=partition.number,
            epoch=epoch,
            journalled=len(journal),
            rebuilt=is_empty,
            facts_to_read=sum(end - applied.get(topic, 0) for topic, end in ended.items()),
            seconds=round(monotonic() - started, 3),
        )
        return True

    async def _take_surplus(self, partition: Partition, seen: Meta | None, epoch: int) -> bool:
        """Take over a partition that somebody has added to call-requests: no number is at home there, and its records are moved."""
        mine = Meta(epoch, time.time_ns(), {})
        if not await self._store.take_over(partition.number, seen, mine):
            return False
        partition.set_meta(mine)
        log.warning("a partition too many is taken over", partition=partition.number, partitions=self._settings.partitions)
        return True

    async def _publish_recalls(self, partition: Partition, kept: Kept) -> None:
        """Publish what a former owner wrote and may not have got out."""
        recalls = [item for items in kept.recalls.values() for item in items]
        if recalls:
            await self._publisher.publish([output_of(self._settings, partition.number, item) for item in recalls])
            await self._store.recalls_published(partition.number, kept.recalls)
            log.info("recalls of a former owner published", partition=partition.number, count=len(recalls))

    async def _fill(self, partition: Partition, mine: Meta, ended: dict[str, int]) -> dict[str, int]:
        """Fill the states from the last checkpoint. Returns up to where each fact topic is in them."""
        reported = monotonic()

        def progress(read: int, of: int) -> None:
            nonlocal reported
            partition.doing = f"is rebuilt: {read:,} of {of:,} state records read"
            partition.unread = of - read
            if monotonic() - reported >= _REPORT_EVERY_S:
                reported = monotonic()
                log.info("partition is rebuilt", partition=partition.number, records=read, of=of)

        try:
            applied = await self._checkpoints.fill(partition, mine, progress)
        finally:
            partition.unread = 0
        if any(offset > ended[topic] for topic, offset in applied.items()):
            log.warning("a checkpoint of a log that is no more is dropped", partition=partition.number)
            await self._store.forget(partition.number)
            return {}
        return applied

    async def _read_outputs(
        self, partition: Partition, mine: Meta, kept: Kept, committed: int, *, is_empty: bool
    ) -> tuple[dict[int, Journalled], dict[str, int]]:
        """Take into the entries what was published and Redis may not know.

        Returns:
            The journal by input offset, and per fact topic the earliest offset that a recent approval was decided with.
        """
        partition.doing = "reads what was published"
        number = partition.number
        ends = (await self._outputs.ends([number]))[number]
        begin = kept.outputs if kept.outputs and not is_empty else await self._window(number, committed)
        if any(begin[topic] > end for topic, end in ends.items()):  # the output topics are other ones by now
            begin = await self._window(number, committed)
        now, memory_s = self._now(), self._settings.request_memory_s
        remembered_ms = int((time.time() - memory_s - _MARGIN_S) * 1000)
        ended_text = format_instant((now - _MARGIN_S * SECOND) // SECOND * SECOND).encode()
        found = await self._outputs.read(number, begin, ends, lambda record: matters(record, committed, remembered_ms, ended_text))
        # What this worker holds of a former turn is published yet, perhaps, although Redis does not know of it any more.
        journal = {offset: item for offset, item in partition.journal.items() if offset >= committed} | kept.journal
        found += [one for item in journal.values() if (one := unpublished(item)) is not None]
        decided_from: dict[str, int] = {}
        recent: dict[str, list[Published]] = defaultdict(list)
        for one in found:
            if one.item.offset >= committed and one.item.offset not in journal:
                journal[one.item.offset] = one.item
            if one.decided_at <= now - memory_s * SECOND and one.valid_until <= now:
                continue
            recent[one.item.number].append(one)
            if one.item.approved:  # also if it has just ended: a stop may have met it before
                for topic in FACT_MODELS:
                    offset = one.as_of.get(topic, 0)
                    decided_from[topic] = min(offset, decided_from.get(topic, offset))
        await self._write_entries(number, mine, recent, now)
        await self._store.note_outputs({number: ends})
        partition.outputs = dict(ends)
        partition.unexplained.clear()
        return journal, decided_from

    async def _write_entries(self, number: int, mine: Meta, recent: dict[str, list[Published]], now: int) -> None:
        numbers = list(recent)
        for begin in range(0, len(numbers), _CHUNK):
            chunk = numbers[begin : begin + _CHUNK]
            known = await self._store.read_entries(number, chunk)
            changed: dict[str, list[Entry]] = {}
            for of in chunk:
                entries = {entry.request_id: entry for entry in known.get(of, ())}
                if sum(take_in(entries, one) for one in recent[of]):
                    changed[of] = list(entries.values())
            await asyncio.sleep(0)
            if not changed:
                continue
            keep_s = keep_entries_s((entry for entries in changed.values() for entry in entries), now, self._settings.request_memory_s)
            values = {of: pack(entries) for of, entries in changed.items()}
            if not await self._store.restore(number, mine, values, "e", keep_s):
                raise StateError(f"partition {number} was taken over by another while it was rebuilt")

    async def _window(self, number: int, committed: int) -> dict[str, int]:
        """Where in the output topics the decisions begin that may still matter.

        Those of the last minutes; and, if requests have waited longer, those since the first request that is not committed, for it may
        have been answered.
        """
        since_ms = int((time.time() - self._window_s) * 1000)
        first_waiting = await self._waiting_since_ms(number, committed)
        return await self._outputs.since(number, min(since_ms, first_waiting) if first_waiting is not None else since_ms)

    async def _waiting_since_ms(self, number: int, committed: int) -> int | None:
        """Log time of the first request that is not committed; None if there is none."""
        tp = TopicPartition(self._settings.topic(REQUEST_TOPIC), number)
        end = (await self._reader.ends([tp]))[tp]
        if committed >= end:
            return None
        times: list[int] = []

        async def take(records: list[object]) -> None:
            times.extend(record.timestamp for record in records[:1])  # type: ignore[attr-defined]  # aiokafka's record

        await self._reader.read({tp: (committed, committed + 1)}, take)
        return times[0] if times else None
