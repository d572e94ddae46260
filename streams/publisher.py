"""Publishes whole batches with acks=all and waits for the broker's acknowledgement.

Every partition of a topic is published to on its own: one that the broker does not take records for holds up no other. A batch that
is too large for its topic is halved until what is refused is one record; that one stays undelivered until an operator raises the
limit, because a record that is left out is a call that nobody decided.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from config.settings import Settings
from rules.e164 import is_e164
from rules.errors import DeliveryFailed
from rules.events import MAX_RECORD_BYTES
from streams.clocks import Comparison, steady
from streams.partitioner import partition_of
from streams.trouble import Trouble

_BATCH_BYTES = 900_000  # below the broker's default limit of 1 MiB a batch, with room for its headers
#: A topic must take records of this size (Kafka's default): the bytes of a broken record, in base64, are the largest that are written.
MAX_MESSAGE_BYTES = 1_048_576
_MAX_HEADER_BYTES = 64 * 1024  # more than this does not travel with a misplaced record, which might become too large to publish

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes]]


class Acknowledged(NamedTuple):
    """Where records of ours lie: topic (full name), partition, and offsets from ``begin`` up to ``end`` (exclusive)."""

    topic: str
    partition: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Output:
    """One record to publish to an explicit partition of a topic (full name)."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


#: A record that was not acknowledged, and why.
Missed = tuple[Output, Exception]


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
        #: Told where every acknowledged batch lies.
        self.on_acknowledged: Callable[[Acknowledged], None] = lambda _where: None
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
            max_request_size=MAX_MESSAGE_BYTES,
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
            DeliveryFailed: some stayed unacknowledged within ``publish_timeout_s``, and says which; the others are done.
        """
        grouped: dict[TopicPartition, list[Output]] = defaultdict(list)
        for output in outputs:
            grouped[TopicPartition(output.topic, output.partition)].append(output)
        missed = [one for lost in await asyncio.gather(*(self._deliver(tp, batch) for tp, batch in grouped.items())) for one in lost]
        if missed:
            prefix = self._settings.topic_prefix
            refusals = Counter(f"not taken {output.topic.removeprefix(prefix)} {type(error).__name__}" for output, error in missed)
            reasons = ", ".join(f"{count} {what}" for what, count in refusals.items())
            self.trouble.met()
            raise DeliveryFailed(f"the broker did not acknowledge: {reasons}", [output for output, _ in missed], refusals)

    async def _deliver(self, tp: TopicPartition, outputs: list[Output]) -> list[Missed]:
        """Publish to one partition. Returns what was not acknowledged in time, with the reason."""
        return await self._send(tp, outputs, asyncio.get_running_loop().time() + self._settings.publish_timeout_s)

    async def _send(self, tp: TopicPartition, outputs: list[Output], deadline: float) -> list[Missed]:
        """Publish to one partition until a deadline of the loop's clock; what is acknowledged by then is done, and not sent again."""
        producer = self._running()
        missed: list[Missed] = []
        sent: list[tuple[list[Output], asyncio.Future[Any]]] = []
        asked = steady()
        try:
            for batch, held in closed_batches(producer, outputs):
                try:
                    async with asyncio.timeout_at(deadline):
                        sent.append((held, await producer.send_batch(batch, tp.topic, partition=tp.partition)))
                except (KafkaError, OSError) as error:
                    missed += [(output, error) for output in held]
            for held, acknowledgement in sent:
                try:
                    async with asyncio.timeout_at(deadline):
                        self._note(await acknowledgement, len(held), asked)
                except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
                    missed += await self._send_smaller(tp, held, error, deadline)
                except (KafkaError, OSError) as error:  # a deadline that has passed is one too
                    missed += [(output, error) for output in held]
        finally:
            for _, acknowledgement in sent:
                acknowledgement.cancel()  # only where we are cancelled ourselves
        return missed

    def _note(self, where: Any, count: int, asked: float) -> None:  # aiokafka's RecordMetadata
        """Pass on where a batch lies, and what it tells of the broker's clock."""
        if where.timestamp >= 0:  # -1 where the topic keeps the producer's time
            stamp_s = where.timestamp / 1000
            self.clock.answered(stamp_s, stamp_s, asked)
        self.on_acknowledged(Acknowledged(where.topic, where.partition, where.offset, where.offset + count))

    async def _send_smaller(self, tp: TopicPartition, outputs: list[Output], error: KafkaError, deadline: float) -> list[Missed]:
        """Send the halves of a batch that was too large, until what is refused is one record."""
        if len(outputs) > 1:
            middle = len(outputs) // 2
            return await self._send(tp, outputs[:middle], deadline) + await self._send(tp, outputs[middle:], deadline)
        log.error(
            "a record is too large for its topic",
            topic=tp.topic,
            partition=tp.partition,
            bytes=len(outputs[0].value or b""),
            remedy=f"set its max.message.bytes to {MAX_MESSAGE_BYTES} or more; the record waits",
        )
        return [(outputs[0], error)]

    def _running(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise DeliveryFailed("the publisher is not connected")
        return self._producer


def closed_batches(producer: AIOKafkaProducer, outputs: list[Output]) -> Iterator[tuple[Any, list[Output]]]:
    """The records as closed batches of at most the producer's size, each with what it holds."""
    batch, held = producer.create_batch(), list[Output]()
    for output in outputs:
        record = {"key": output.key, "value": output.value, "timestamp": None, "headers": list(output.headers)}
        if batch.append(**record) is None:  # full: ship it and start another
            batch.close()
            yield batch, held
            batch, held = producer.create_batch(), []
            batch.append(**record)
        held.append(output)
    batch.close()
    yield batch, held
