"""Publishes whole batches with acks=all and waits for the broker's acknowledgement."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from rules.e164 import is_e164
from rules.errors import DeliveryFailed
from rules.events import MAX_RECORD_BYTES
from streams.clocks import Comparison, steady
from streams.partitioner import partition_of
from streams.trouble import Trouble

_BATCH_BYTES = 900_000  # below the broker's default limit of 1 MiB a batch, with room for its headers
_MAX_REQUEST_BYTES = 1_048_576
_MAX_HEADER_BYTES = 64 * 1024  # more than this does not travel with a misplaced record, which might become too large to publish

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Output:
    """One record to publish to an explicit partition of a topic (full name)."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def moved_home(record: Any, topic: str, settings: Settings) -> Output | None:
    """A record of a topic keyed by number (name without prefix), as it has to be published to the partition of its key.

    Returns:
        None if it is there already, if its key is no number, or if it is too large to be read there too.
    """
    key = record.key
    if key is None or not is_e164(key.decode("utf-8", "replace")) or len(record.value or b"") > MAX_RECORD_BYTES:
        return None
    home = partition_of(key, settings.partitions)
    if home == record.partition:
        return None
    carried = sum(len(name) + len(value or b"") for name, value in record.headers)
    headers = record.headers if carried <= _MAX_HEADER_BYTES else ()
    return Output(settings.topic(topic), home, key, record.value, headers)


class Publisher:
    """A producer of our own beside Faust's: batches of 250,000 records/s, where sending one record after the other does 69,000."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self.clock = Comparison()  # the topics carry the brokers' time, so every acknowledgement tells it
        self.trouble = Trouble()

    async def start(self) -> None:
        """Connect."""
        # Not idempotent: an idempotent aiokafka producer stays broken after a record that was too large. A retry may therefore repeat
        # a record, byte for byte, which readers expect.
        self._producer = AIOKafkaProducer(
            **self._settings.kafka_client(),
            acks="all",
            linger_ms=0,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_MAX_REQUEST_BYTES,
            request_timeout_ms=int(self._settings.publish_timeout_s * 1000),
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is left and let go of the connection."""
        if self._producer is not None:
            await self._producer.stop()

    async def partitions(self, topic: str) -> int:
        """Number of partitions of a topic (full name)."""
        producer = self._running()
        return len(await producer.partitions_for(topic))

    async def publish(self, outputs: Iterable[Output]) -> None:
        """Publish records, in order within a partition, and wait until the broker has acknowledged them all.

        Raises:
            DeliveryFailed: a record stayed unacknowledged; publishing the same again is safe.
        """
        grouped: dict[TopicPartition, list[Output]] = defaultdict(list)
        for output in outputs:
            grouped[TopicPartition(output.topic, output.partition)].append(output)
        asked = steady()
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                sent = [acknowledgement for tp, batch in grouped.items() for acknowledgement in await self._send(tp, batch)]
                acknowledged = await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as error:
            self.trouble.met()
            raise DeliveryFailed(f"the broker did not take {sum(map(len, grouped.values()))} records: {error!r}") from None
        stamps = [one.timestamp / 1000 for one in acknowledged if one.timestamp >= 0]  # -1 where the topic keeps the producer's time
        if stamps:
            self.clock.answered(min(stamps), max(stamps), asked)

    async def _send(self, tp: TopicPartition, outputs: list[Output]) -> list[asyncio.Future[Any]]:
        producer = self._running()
        sent = []
        batch = producer.create_batch()
        for output in outputs:
            record = {"key": output.key, "value": output.value, "timestamp": None, "headers": list(output.headers)}
            if batch.append(**record) is None:  # full: ship it and start another
                batch.close()
                sent.append(await producer.send_batch(batch, tp.topic, partition=tp.partition))
                batch = producer.create_batch()
                batch.append(**record)
        batch.close()
        sent.append(await producer.send_batch(batch, tp.topic, partition=tp.partition))
        return sent

    def _running(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise DeliveryFailed("the publisher is not connected")
        return self._producer
