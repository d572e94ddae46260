"""A Faust transport that hands agents whole record batches and commits exactly what was acknowledged.

Protocol of a partition here: the consumer thread fetches; every fetch of a partition becomes one message whose value is a
:class:`Fetched`: the records between two positions, so that offsets which hold no record for us (compacted away, transaction markers)
are accounted for too. Agents acknowledge a :class:`Fetched` by hand, after the broker has their output; committed is what was
acknowledged without a hole.

Why not Faust's own path: it makes four tasks a record (4,800 records/s at most, 2 cores), commits past an in-flight record (faust#606),
acknowledges an event whose agent raised (faust#315) and assigns partitions of one number to different workers when a worker has no
changelog tables. Measured with this driver: 460,000 records/s through an empty agent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import aiokafka
import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from config.settings import Settings

_FETCH_WAIT_MS = 100  # the driver's own 1,500 holds a seek back that long; shorter ones cost broker and worker CPU when idle
_MAX_POLL_RECORDS = 1000
_MOST_FETCHED_BYTES = 1 << 20  # of a partition: some 2,000 requests; a response of 4 MiB each cost 40 MB of memory
# A worker that starts while a broker comes back may know no topics, and as the group's leader then gives nobody a partition: a storm
# saw that last for 48 s. aiokafka hands out anew when it learns of them; by default it would look after 5 minutes.
_METADATA_AGE_MS = 5_000


class Tracker:
    """Acknowledgements of one partition during one assignment; forgotten with it, so that a late one cannot count."""

    def __init__(self) -> None:
        self._open: deque[Fetched] = deque()
        self._committable: int | None = None

    def delivered(self, fetched: Fetched) -> None:
        """Count a batch as handed out."""
        self._open.append(fetched)

    def first_open(self) -> int | None:
        """Where the first batch begins that is not acknowledged, None if all are."""
        return self._open[0].first_offset if self._open else None

    def settle(self) -> None:
        """Move the committable offset past every batch that was acknowledged without a hole before it."""
        while self._open and self._open[0].acknowledged:
            self._committable = self._open.popleft().next_offset

    def committable(self) -> int | None:
        """The offset to commit, None if nothing is acknowledged yet."""
        return self._committable


@dataclass(slots=True, eq=False)
class Fetched:
    """The records of one partition between two positions.

    ``begin`` is the position before the fetch and ``next_offset`` the one after; ``begin`` is None right after an assignment, when only
    the offset of the first record is known. ``records`` may be empty.
    """

    tp: TP
    begin: int | None
    next_offset: int
    records: list[Any]
    tracker: Tracker = field(default_factory=Tracker)
    acknowledged: bool = False

    @property
    def first_offset(self) -> int:
        """Where the batch begins, for certain: its position, or the first record where that is unknown."""
        if self.begin is not None:
            return self.begin
        return self.records[0].offset if self.records else self.next_offset

    def acknowledge(self) -> None:
        """All output of this batch is with the broker; its offsets may be committed."""
        self.acknowledged = True
        self.tracker.settle()


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that runs aiokafka's consumer; it alone knows positions at the instant at which records are drained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._begin: dict[TP, int] = {}
        self._awaited: object | None = None

    def _create_worker_consumer(self, transport: Transport) -> aiokafka.AIOKafkaConsumer:
        settings, conf = transport.settings, self.app.conf
        # Faust's own assignor co-partitions: all topics of partition p go to one worker. Faust itself would fall back to round robin.
        self._assignor = self.app.assignor
        return aiokafka.AIOKafkaConsumer(
            **settings.kafka_client(),
            client_id=conf.broker_client_id,
            group_id=conf.id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=_MAX_POLL_RECORDS,
            max_poll_interval_ms=60_000,
            max_partition_fetch_bytes=_MOST_FETCHED_BYTES,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            metadata_max_age_ms=_METADATA_AGE_MS,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            rebalance_timeout_ms=int(max(30.0, settings.session_timeout_s) * 1000),
            heartbeat_interval_ms=int(settings.heartbeat_s * 1000),
            # Facts of an aborted transaction were never acknowledged to anybody.
            isolation_level="read_committed",
        )

    async def getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, Fetched]:  # noqa: ASYNC109  # as Faust's
        """What can be read now, or within a time.

        At a rebalance Faust cancels this call, and the fetch goes on in its thread without it. What such a fetch finds, after
        everybody else has begun anew, is left where it is.
        """
        self._awaited = awaited = object()
        try:
            return cast("dict[TP, Fetched]", await self.call_thread(self._fetch, awaited, active_partitions or set(), timeout))
        finally:
            if self._awaited is awaited:
                self._awaited = None

    async def _fetch(self, awaited: object, active_partitions: set[TP], within_s: float) -> dict[TP, Fetched]:
        consumer = self._ensure_consumer()
        records = await self._fetch_records(consumer, active_partitions, timeout=within_s, max_records=_MAX_POLL_RECORDS)
        # No other task of this thread has run since the records were drained: their positions are what they are now.
        if self._awaited is not awaited:
            for tp, drained in records.items():
                if drained:
                    await self._rewind(tp, drained[0].offset)
            return {}
        fetched = {}
        subscription = consumer._subscription.subscription  # noqa: SLF001  # aiokafka has no synchronous public position
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return {}
        for tp in active_partitions & assignment.tps:
            state = assignment.state_value(tp)
            if not state.has_valid_position:
                continue
            drained = records.get(tp, [])
            begin = self._begin.get(tp)
            if drained or (begin is not None and begin != state.position):
                fetched[tp] = Fetched(tp, begin, state.position, drained)
            self._begin[tp] = state.position
        return fetched

    async def seek_to_committed(self) -> dict[TP, int | None]:
        """Go to what the group has committed, on a clean slate; to the beginning where that is nothing."""
        return cast("dict[TP, int | None]", await self.call_thread(self._seek_to_committed))

    async def _seek_to_committed(self) -> dict[TP, int | None]:
        # aiokafka's own leaves a partition without a committed offset where it is, and what was fetched and not handed out would never
        # be seen again; and it fails if a partition goes to another worker while it asks: the next assignment seeks for itself.
        self._begin.clear()
        consumer, committed = self._ensure_consumer(), dict[TP, int | None]()
        for tp in list(consumer.assignment()):
            offset = await consumer.committed(tp)
            if tp in consumer.assignment():
                consumer.seek(tp, offset or 0)
                committed[tp] = offset
        self._begin.clear()
        return committed

    async def committed(self, tp: TP) -> Any:
        """What the group has committed for a partition."""
        return await self.call_thread(self._ensure_consumer().committed, tp)

    def position(self, tp: TP) -> int | None:
        """The next offset to be fetched, None while that is not known; may be asked from any thread."""
        consumer = self._consumer
        subscription = consumer._subscription.subscription if consumer is not None else None  # noqa: SLF001  # as above
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None or tp not in assignment.tps:
            return None
        position: int | None = assignment.state_value(tp)._position  # noqa: SLF001  # its property asserts what may change meanwhile
        return position

    async def rewind(self, tp: TP, offset: int) -> None:
        """Read a partition again from an offset."""
        await self.call_thread(self._rewind, tp, offset)

    async def _rewind(self, tp: TP, offset: int) -> None:
        if tp in self._ensure_consumer().assignment():
            self._ensure_consumer().seek(tp, offset)
            self._begin[tp] = offset


class Consumer(driver.Consumer):
    """Faust's consumer with one message a fetch of a partition, and commits from our own trackers."""

    #: Called with the offsets that were committed, by partition.
    on_committed: Callable[[dict[TP, int]], Awaitable[None]] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._trackers: dict[TP, Tracker] = {}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def committed(self, tp: TP) -> int | None:
        """What the group has committed for a partition; None if nothing."""
        return cast("int | None", await self._thread.committed(tp))

    async def rewind(self, tp: TP, offset: int) -> None:
        """Read a partition again from an offset; what was handed out before counts no more.

        During a rebalance it waits for the end, because that begins with Faust's own seek to what was committed; it does nothing if the
        assignment that it was meant for is over.
        """
        generation = self.app.consumer_generation_id
        await self.can_resume_flow.wait()
        if self.app.consumer_generation_id == generation:
            self._trackers.pop(tp, None)
            await self._thread.rewind(tp, offset)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109  # Faust's signature
        """Yield one message a partition, with the whole fetch as its value."""
        fetched, _ = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if fetched is None or self.should_stop:
            return
        if not self.flow_active:  # a rebalance began while we waited
            await self.perform_seek()
            return
        for tp, batch in fetched.items():
            if self.app.consumer_generation_id != generation or not self.flow_active:
                break
            batch.tracker = self._trackers.setdefault(tp, Tracker())
            batch.tracker.delivered(batch)
            # Faust would drop what lies below the offset that it has seen, also after a rewind; our agents notice repeats and gaps.
            self._read_offset[tp] = None
            yield tp, ConsumerMessage(
                tp.topic, tp.partition, batch.next_offset, None, None, (), None, batch, None, 0, 0, tp,
                generation_id=generation,
            )  # fmt: skip

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Batches leave gaps by design; the tracker does not need them filled."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:  # noqa: ARG002  # Faust's signature
        return iter([tp for tp, tracker in self._trackers.items() if tracker.committable() is not None])

    def done(self, tp: TP) -> int:
        """The offset below which everything is acknowledged in this assignment, or was before it; -1 while that is not known."""
        tracker = self._trackers.get(tp)
        first_open = tracker.first_open() if tracker is not None else None
        if first_open is not None:
            return first_open
        position = self._thread.position(tp)
        return position if position is not None else -1

    @property
    def thread_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the thread that fetches."""
        loop: asyncio.AbstractEventLoop = self._thread.thread_loop
        return loop

    def _new_offset(self, tp: TP) -> int | None:
        tracker = self._trackers.get(tp)
        return tracker.committable() if tracker is not None else None

    async def _commit(self, offsets: Any) -> bool:  # Faust's own mapping
        committed: bool = await super()._commit(offsets)
        if committed and self.on_committed is not None:
            await self.on_committed(dict(offsets))
        return committed

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget the acknowledgements of what is no longer ours."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._trackers.pop(tp, None)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's check for stalled streams counts single records; readiness and the watchdog look after progress here."""


class Producer(driver.Producer):
    """Faust's own producer, which we do not publish through, on the connection that the settings give."""

    def _settings_auth(self) -> dict[str, Any]:
        return dict(self.transport.settings.kafka_client())


class Transport(driver.Transport):
    """Put on an app with :func:`install`."""

    Consumer = Consumer
    Producer = Producer

    settings: Settings


def install(app: faust.App, settings: Settings) -> None:
    """Make an app read through this transport, on the connection that the settings give."""
    transport = Transport(app.conf.broker_consumer, app)
    transport.settings = settings
    app.transport = transport
    app.producer_transport = transport
