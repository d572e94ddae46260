"""Puts records on the guard's input topics and says where they are, once Kafka has acknowledged them."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.client_log import connecting
from rules.errors import CannotStart, DeliveryFailed
from rules.events import REFERENCE_MODELS
from streams.partitioner import partition_of
from streams.publisher import MAX_MESSAGE_BYTES, Headers

# Requests that come within it share one request to the broker, which costs a third of a millisecond of CPU in pure Python.
_LINGER_MS = 5


class Unacknowledged(DeliveryFailed):
    """Kafka did not acknowledge a record in time. It may have it all the same; sending it again is safe."""


class Publishing:
    """A producer with acks=all for many records at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            CannotStart: no broker answers.
        """
        self._producer = AIOKafkaProducer(
            **self._settings.kafka_client(),
            acks="all",
            linger_ms=_LINGER_MS,
            max_request_size=MAX_MESSAGE_BYTES,
            request_timeout_ms=int(self._settings.publish_timeout_s * 1000),
        )
        try:
            with connecting(self._settings):
                await self._producer.start()
        except CannotStart:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Send what is left and let go of the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def send(self, topic: str, key: str, value: bytes | None, context: Headers = ()) -> asyncio.Future[Any]:
        """Hand one record (topic without prefix), with its trace context, to the producer.

        It goes to its key's partition; reference topics have one.

        Returns:
            aiokafka's RecordMetadata, once Kafka has acknowledged it; or its error, which :func:`unacknowledged` puts into words.

        Raises:
            Unacknowledged: it cannot be sent.
        """
        if self._producer is None:
            raise Unacknowledged("the gateway is not connected to Kafka")
        partition = 0 if topic in REFERENCE_MODELS else partition_of(key.encode(), self._settings.partitions)
        try:
            acknowledged: asyncio.Future[Any] = await self._producer.send(
                self._settings.topic(topic), value, key.encode(), partition=partition, headers=list(context)
            )
        except (KafkaError, OSError) as error:
            raise unacknowledged(error) from None
        return acknowledged

    async def publish(self, topic: str, key: str, value: bytes | None, context: Headers = ()) -> Any:  # aiokafka's RecordMetadata
        """As :meth:`send`, and wait until Kafka has acknowledged the record.

        Raises:
            Unacknowledged: it did not say within ``publish_timeout_s`` that it has it.
        """
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                return await (await self.send(topic, key, value, context))
        except (KafkaError, OSError) as error:  # TimeoutError is one too
            raise unacknowledged(error) from None


def unacknowledged(error: BaseException) -> Unacknowledged:
    """What to tell whoever sent a record that Kafka may not have."""
    return Unacknowledged(f"Kafka has not acknowledged the record: {type(error).__name__}; sending it again is safe")
