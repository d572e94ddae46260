"""Follows topics as they grow, without a consumer group: it commits nothing and disturbs nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.client_log import connecting
from rules.errors import CannotStart
from streams.disconnect import disconnect

#: How long a fetch waits where nothing is written.
_IDLE_MS = 500
# Of records that nobody waits for: a fetch for each of them costs a third of a millisecond of CPU, so they are fetched in lots.
_LOT = {"fetch_min_bytes": 256 * 1024, "fetch_max_wait_ms": 200}
_UNDER_WAY_MS = 2000

#: Takes in a record: name of its topic without prefix, record.
Take = Callable[[str, "ConsumerRecord[bytes, bytes]"], None]


class Follower:
    """Lifecycle: ``start`` -> ``run`` (until cancelled) -> ``stop``."""

    def __init__(
        self, settings: Settings, topics: Iterable[str], take: Take, *, whole: Iterable[str] = (), in_lots: bool = False
    ) -> None:
        """Nothing is read yet.

        Args:
            settings: where Kafka is, and the prefix of the topics.
            topics: their names, without prefix.
            take: called with every record.
            whole: those that are read from their beginning; of the others what is written from now on.
            in_lots: nobody waits for a record; they may come some 200 ms later, for much less CPU.
        """
        self._settings = settings
        self._topics = {settings.topic(name): name for name in topics}
        self._whole = frozenset(whole)
        self._take = take
        self._fetching: dict[str, Any] = _LOT if in_lots else {"fetch_max_wait_ms": _IDLE_MS}
        self._consumer: AIOKafkaConsumer | None = None
        self._next: dict[TopicPartition, int] = {}
        self._level_ms: dict[TopicPartition, int] = {}
        self._newest_ms = 0
        #: A log time before which every record has been read, 0 before the first; what is on its way has two seconds to arrive.
        self.settled_ms = 0

    async def start(self) -> None:
        """Connect and go to where reading begins.

        Raises:
            CannotStart: the broker does not answer, or a topic is not there.
        """
        consumer = AIOKafkaConsumer(
            *self._topics,
            **self._settings.kafka_client(),
            group_id=None,
            auto_offset_reset="latest",
            enable_auto_commit=False,
            request_timeout_ms=10_000,
            **self._fetching,
        )
        self._consumer = consumer
        try:
            with connecting(self._settings):
                await consumer.start()
                await consumer.seek_to_end()
                whole = [tp for tp in consumer.assignment() if self._topics[tp.topic] in self._whole]
                if whole:
                    await consumer.seek_to_beginning(*whole)
        except CannotStart:
            await self.stop()
            raise

    async def run(self) -> None:
        """Read until cancelled. A broker that goes away is waited for."""
        assert self._consumer is not None  # started
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=_IDLE_MS, max_records=5000)
            except KafkaError:
                await asyncio.sleep(0.5)
                continue
            if batches and not self._newest_ms:  # also who takes the first record is told a time
                self.settled_ms = max(0, min(records[0].timestamp for records in batches.values()) - _UNDER_WAY_MS)
            for tp, records in batches.items():
                for record in records:
                    self._take(self._topics[tp.topic], record)
                self._next[tp] = records[-1].offset + 1
                self._newest_ms = max(self._newest_ms, records[-1].timestamp)
            for tp in self._consumer.assignment():
                if (self._consumer.highwater(tp) or 0) <= self._next.get(tp, 0):
                    self._level_ms[tp] = self._newest_ms
            if self._newest_ms:
                self.settled_ms = max(0, min(self._level_ms.values(), default=self._newest_ms) - _UNDER_WAY_MS)

    async def behind(self) -> int:
        """How many records the broker has that were not read yet.

        Raises:
            KafkaError, OSError: it does not answer.
        """
        assert self._consumer is not None  # started
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        positions = {tp: await self._consumer.position(tp) for tp in ends}
        return sum(max(0, int(end) - int(positions[tp])) for tp, end in ends.items())

    async def stop(self) -> None:
        """Disconnect. Safe to call twice."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await disconnect(consumer)
