"""Reads given ranges of partitions, outside any consumer group: what take-overs have to look up in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from rules.errors import StateError
from streams.disconnect import disconnect

_POLL_MS = 200
_MOST_RECORDS = 2000
_STALLED_AFTER_S = 20.0


class LogReader:
    """One consumer that reads, one look-up after the other, and one that asks. Methods raise ``StateError`` if no broker answers.

    One alone would forget the topics that it was asked about with every read, and the next question would cost 100 ms a topic.
    """

    def __init__(self, settings: Settings, isolation_level: Literal["read_committed", "read_uncommitted"]) -> None:
        self._settings = settings
        self._isolation_level = isolation_level
        self._consumer: AIOKafkaConsumer | None = None
        self._asked: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Connect."""
        self._consumer, self._asked = self._new_consumer(), self._new_consumer()
        await self._consumer.start()
        await self._asked.start()

    async def stop(self) -> None:
        """Let go of the connections."""
        for consumer in (self._consumer, self._asked):
            if consumer is not None:
                await disconnect(consumer)

    def _new_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self._settings.kafka_client(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=self._isolation_level,
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=_POLL_MS,
            request_timeout_ms=5_000,
        )

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Next offset of each partition, as far as the isolation level lets read."""
        asked = list(partitions)
        answered: dict[TopicPartition, int] = await self._ask(lambda consumer: consumer.end_offsets(asked))
        if any(tp not in answered for tp in asked):
            raise StateError("the broker does not know the end of every topic")
        return answered

    async def since(self, partitions: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        """Of each partition the first offset whose log time is at or after an instant; its end if there is none."""
        asked = list(partitions)
        found = await self._ask(lambda consumer: consumer.offsets_for_times(dict.fromkeys(asked, time_ms)))
        ends = await self.ends(asked)
        return {tp: found[tp].offset if found.get(tp) is not None else ends[tp] for tp in asked}

    async def read(self, ranges: Mapping[TopicPartition, tuple[int, int]], take: Callable[[list[Any]], Awaitable[None]]) -> None:
        """Read the records from each begin up to each end (exclusive), and hand them over in batches of one partition."""
        left = {tp: end for tp, (begin, end) in ranges.items() if begin < end}
        if not left:
            return
        async with self._lock:
            consumer = _running(self._consumer)
            try:
                consumer.assign(list(left))
                for tp in left:
                    consumer.seek(tp, ranges[tp][0])
                await self._read_up_to(consumer, left, take)
            except (KafkaError, OSError) as error:
                raise StateError(f"the log cannot be read: {error!r}") from None
            finally:
                consumer.unsubscribe()

    async def _read_up_to(
        self, consumer: AIOKafkaConsumer, left: dict[TopicPartition, int], take: Callable[[list[Any]], Awaitable[None]]
    ) -> None:
        moved_at = monotonic()
        while left:
            fetched = await consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
            for tp, records in fetched.items():
                moved_at = monotonic()
                await take([record for record in records if record.offset < left[tp]])
            for tp in list(left):
                # Positions also move over what compaction and aborted transactions have taken out.
                if await consumer.position(tp) >= left[tp]:
                    del left[tp]
            if monotonic() - moved_at > _STALLED_AFTER_S:
                raise StateError("the log cannot be read: nothing came for 20 s")

    async def _ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[Any]]) -> Any:
        try:
            return await question(_running(self._asked))
        except (KafkaError, OSError) as error:
            raise StateError(f"the broker does not say where the topics end: {error!r}") from None


def _running(consumer: AIOKafkaConsumer | None) -> AIOKafkaConsumer:
    if consumer is None:
        raise StateError("the log reader is not connected")
    return consumer
