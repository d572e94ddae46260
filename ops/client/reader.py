"""Reads the two output topics for the gate, and asks the broker again and again where they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from config.clock import Clock
from config.settings import Settings
from ops.client.guard_time import Now
from ops.client.keeper import Keeper
from ops.client_log import connecting
from rules.errors import CannotStart
from streams.disconnect import disconnect
from streams.topics import APPROVED, BLOCKED

_POLL_MS = 100
_AT_ONCE = 2000
_RETRY_S = 0.1
#: Looks within the bound, so that one that is answered late does not make the reader fall behind.
_LOOKS = 5

#: Told of every record that was taken in: its request_id and itself.
OnRecord = Callable[[str, "ConsumerRecord[bytes, bytes]"], None]


class OutputReader:
    """Lifecycle: ``start`` -> ``stop``. Between them two tasks read and look; it belongs to no consumer group and commits nothing."""

    def __init__(self, settings: Settings, keeper: Keeper, clock: Clock, on_record: OnRecord) -> None:
        self._settings = settings
        self._keeper = keeper
        self._clock = clock
        self._on_record = on_record
        self._approvals = settings.topic(APPROVED)
        self._topics = (self._approvals, settings.topic(BLOCKED))
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()
        self._reached = asyncio.Event()
        self._looked = asyncio.Condition()

    def now(self) -> Now:
        """The clocks."""
        return Now(self._clock.now(), time.monotonic())

    async def start(self, back_s: float) -> None:
        """Connect, go back in the topics, and begin to read.

        Args:
            back_s: how far back, in seconds of the broker's log time.

        Raises:
            CannotStart: the broker does not answer, or a topic is not there.
        """
        consumer = AIOKafkaConsumer(
            *self._topics,
            **self._settings.kafka_client(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
            request_timeout_ms=5_000,
        )
        self._consumer = consumer
        try:
            with connecting(self._settings):
                await consumer.start()
                self._keeper.currency.begin(await _seek_back(consumer, back_s))
        except CannotStart:
            await self.stop()
            raise
        self._tasks = [asyncio.create_task(self._read(consumer)), asyncio.create_task(self._look(consumer))]

    async def stop(self) -> None:
        """Disconnect. Safe to call twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await disconnect(consumer)

    async def reaches(self, since_s: float, within_s: float) -> bool:
        """Wait until everything is known that was there at a moment of the monotonic clock. Returns whether it came to that."""
        currency = self._keeper.currency
        self._hurry.set()
        for task in self._tasks:
            if task.done():
                task.result()  # what ended it says why nothing is read any more
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._looked:
                await self._looked.wait_for(lambda: currency.as_of_s is not None and currency.as_of_s >= since_s)
                return True
        return False

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        currency = self._keeper.currency
        while True:
            try:
                batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_AT_ONCE)
            except KafkaError:
                await asyncio.sleep(_RETRY_S)
                continue
            now = self.now()
            for tp, records in batches.items():
                for record in records:
                    request_id = self._keeper.read(record.value, approves=tp.topic == self._approvals, now=now)
                    if request_id is not None:
                        self._on_record(request_id, record)
                currency.read_up_to(tp, records[-1].offset + 1)
            self._keeper.forget(now)
            if not currency.waits:
                self._reached.set()

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        """Ask where the topics end, wait until all of that is read, and so on.

        The next question waits for the end of the one before: ends that move on would never be reached otherwise.
        """
        currency = self._keeper.currency
        every_s = currency.bound_s / _LOOKS
        while True:
            self._hurry.clear()
            look = currency.look(time.monotonic())
            try:
                ends = await consumer.end_offsets(list(currency.partitions))
            except (KafkaError, OSError):
                await asyncio.sleep(_RETRY_S)
                continue
            self._reached.clear()
            # Partitions that were added may hold answers: whoever adds some breaks the contract, and nothing is current any more.
            currency.found(look, ends if consumer.assignment() == set(currency.partitions) else {})
            if currency.waits:
                await _within(currency.bound_s, self._reached.wait())
            async with self._looked:
                self._looked.notify_all()
            await _within(every_s, self._hurry.wait())


async def _seek_back(consumer: AIOKafkaConsumer, back_s: float) -> dict[TopicPartition, int]:
    """Go to the first records that are younger; returns where that is."""
    partitions = list(consumer.assignment())
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, int((time.time() - back_s) * 1000)))
    ends = await consumer.end_offsets(partitions)
    begins = {tp: found[tp].offset if found.get(tp) is not None else ends[tp] for tp in partitions}
    for tp, offset in begins.items():
        consumer.seek(tp, offset)
    return begins


async def _within(seconds: float, awaited: Awaitable[object]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(awaited, seconds)
