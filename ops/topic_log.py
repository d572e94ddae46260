"""Reads one topic from outside of a guard, without a consumer group, and publishes single records to others."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.client_log import client_silenced, connecting
from rules.errors import CannotStart, DeliveryFailed
from streams.disconnect import disconnect
from streams.publisher import MAX_MESSAGE_BYTES

_POLL_MS = 500
_SILENT_S = 20.0

#: Publishes one record (topic with prefix, partition or None for that of the key, key, value). Returns where it is.
Publish = Callable[[str, int | None, bytes | None, bytes | None], Awaitable[Any]]


class TopicLog:
    """One topic, as it was when it was opened; made by :func:`opened`."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], address: str) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._address = address

    @property
    def partitions(self) -> int:
        """How many partitions the topic has."""
        return len(self._partitions)

    async def records(self, last: int | None = None) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
        """Every record from the beginning up to where the topic ended when this was called; partition by partition in order.

        Args:
            last: so many offsets of each partition at most, counted from its end; None: all.

        Raises:
            CannotStart: the broker no longer answers.
        """
        consumer = self._consumer
        ends = await consumer.end_offsets(self._partitions)
        begins = await consumer.beginning_offsets(self._partitions)
        for tp in self._partitions:
            consumer.seek(tp, begins[tp] if last is None else max(begins[tp], ends[tp] - last))
        heard = time.monotonic()
        while left := [tp for tp in self._partitions if await consumer.position(tp) < ends[tp]]:
            fetched = await consumer.getmany(*left, timeout_ms=_POLL_MS)
            if fetched:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENT_S:
                raise CannotStart(f"Kafka at {self._address} no longer answers")
            for tp, records in fetched.items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record

    async def record(self, partition: int, offset: int) -> ConsumerRecord[bytes, bytes] | None:
        """One record; None if the topic does not hold it, or no longer does."""
        tp = next((one for one in self._partitions if one.partition == partition), None)
        if tp is None:
            return None
        begin, end = (await self._consumer.beginning_offsets([tp]))[tp], (await self._consumer.end_offsets([tp]))[tp]
        if not begin <= offset < end:
            return None
        self._consumer.seek(tp, offset)
        fetched = await self._consumer.getmany(tp, timeout_ms=int(_SILENT_S * 1000), max_records=1)
        return next((record for record in fetched.get(tp, ()) if record.offset == offset), None)


@asynccontextmanager
async def opened(settings: Settings, topic: str) -> AsyncIterator[TopicLog]:
    """Open a topic (name without prefix).

    Raises:
        CannotStart: the broker does not answer, or has no such topic.
    """
    name = settings.topic(topic)
    consumer = AIOKafkaConsumer(
        name,
        **settings.kafka_client(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
        request_timeout_ms=10_000,
    )
    with client_silenced():
        try:
            with connecting(settings):
                await consumer.start()
            partitions = sorted(consumer.assignment())
            if not partitions:
                raise CannotStart(f"Kafka at {settings.kafka} has no topic {name}; `ringfence topics` says what is missing")
            try:
                yield TopicLog(consumer, partitions, settings.kafka)
            except KafkaError as error:
                raise CannotStart(f"{name} cannot be read: {error!r}") from None
        finally:
            await disconnect(consumer)


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[Publish]:
    """Publish single records with acks=all, one after the other.

    Raises:
        CannotStart: the broker does not answer.
    """
    producer = AIOKafkaProducer(
        **settings.kafka_client(),
        acks="all",
        max_request_size=MAX_MESSAGE_BYTES,
        request_timeout_ms=int(settings.publish_timeout_s * 1000),
    )

    async def publish(topic: str, partition: int | None, key: bytes | None, value: bytes | None) -> Any:  # aiokafka's RecordMetadata
        try:
            return await producer.send_and_wait(topic, value, key, partition=partition)
        except (KafkaError, OSError) as error:
            raise DeliveryFailed(f"the broker did not take the record for {topic}: {error!r}") from None

    with client_silenced():
        try:
            with connecting(settings):
                await producer.start()
            yield publish
        finally:
            await producer.stop()
