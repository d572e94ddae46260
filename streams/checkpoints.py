"""The compacted topic ``number-states``: the packed state of every number, written in checkpoints.

By it a lost Redis is filled again in a time that grows with the count of numbers, not with the age of their history.

A checkpoint of partition p is written as transactions: the states of the numbers that changed since the last one, then a record under
the key ``checkpoint`` that says up to where the fact topics are in the states. Facts merge in any order and any number of times, so
states that are newer than their checkpoint do no harm: the facts after it are merged again.

Transactions, because each partition has a transactional id of its own: the first checkpoint of a new owner fences the former one at
the broker, whose late write could else put an older state over a newer one. Their 25 ms matter nothing every few seconds.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from rules.errors import StateError
from rules.events import FACT_MODELS
from streams.kept import Meta
from streams.log_reader import LogReader
from streams.partition import Partition
from streams.publisher import Output, closed_batches
from streams.state import Store
from streams.topics import STATES

log = structlog.get_logger(__name__)

_CHECKPOINT_KEY = b"checkpoint"
#: Of the packed states, before each of them in the topic. Where one of another format stands the checkpoint is not used, and the facts
#: are read from their beginning: what has not changed since the format did would be missing.
_FORMAT = b"\x01"
_CHUNK = 1000
_BATCH_BYTES = 900_000
#: What is not of one value is left out of a checkpoint that would never succeed; the broker takes 1 MiB a record.
_MOST_STATE_BYTES = 880_000
_TRANSACTION_MS = 60_000


_encode = msgspec.json.Encoder().encode
#: A checkpoint record: below these next offsets of the fact topics every fact is in the states that stand before it.
_decode = msgspec.json.Decoder(dict[str, int]).decode


class Checkpoints:
    """Writes checkpoints of the partitions that this worker owns, and fills partitions from them.

    ``written`` counts its checkpoints, ``states`` the states in them, and ``records_read`` what it read to fill partitions.
    """

    def __init__(self, settings: Settings, store: Store, reader: LogReader, owned: Callable[[], Iterable[Partition]]) -> None:
        self._settings = settings
        self._store = store
        self._reader = reader
        self._owned = owned
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._task: asyncio.Task[None] | None = None
        self.written, self.states, self.records_read = 0, 0, 0

    async def start(self) -> None:
        """Write checkpoints from now on, every ``checkpoint_s`` seconds."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End it; what changed since the last checkpoint stays marked in Redis for the next owner."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for number in list(self._producers):
            await self._drop_producer(number)

    @property
    def failure(self) -> BaseException | None:
        """What ended it, if something did."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def fill(self, partition: Partition, mine: Meta, progress: Callable[[int, int], None]) -> dict[str, int]:
        """Put the states of the topic into Redis.

        Args:
            partition: taken over and not ready.
            mine: its meta in Redis.
            progress: told how many records have been read, of how many offsets.

        Returns:
            Up to where each fact topic is in the states; empty if there is no checkpoint that can be used.

        Raises:
            StateError: Redis or the broker does not answer, or the partition is not ours any more.
        """
        tp = TopicPartition(self._settings.topic(STATES), partition.number)
        ends = await self._reader.ends([tp])
        applied: dict[str, int] = {}
        read, is_foreign = 0, False

        async def take(records: list[Any]) -> None:
            nonlocal applied, read, is_foreign
            states = {}
            for record in records:
                if record.value is None or record.value[:1] != _FORMAT:
                    is_foreign = True
                elif record.key == _CHECKPOINT_KEY:
                    applied = _decode(record.value[1:])
                else:
                    states[record.key.decode()] = record.value[1:]
            if states and not await self._store.restore(partition.number, mine, states, "s"):
                raise StateError(f"partition {partition.number} was taken over by another while it was filled")
            read += len(records)
            self.records_read += len(records)
            progress(read, ends[tp])

        await self._reader.read({tp: (0, ends[tp])}, take)
        if is_foreign:
            log.warning("a checkpoint of another format is not used", partition=partition.number)
            return {}
        return {topic: offset for topic, offset in applied.items() if topic in FACT_MODELS}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.checkpoint_s)
            owned = list(self._owned())
            for number in self._producers.keys() - {partition.number for partition in owned}:
                await self._drop_producer(number)
            for partition in owned:
                if partition.ready:
                    try:
                        await self.write(partition)
                    except (StateError, KafkaError, OSError, TimeoutError) as error:
                        log.warning("no checkpoint", partition=partition.number, reason=repr(error))
                        await self._drop_producer(partition.number)

    async def write(self, partition: Partition) -> int:
        """Write one checkpoint of a partition that is ours. Returns how many states are in it.

        Raises:
            StateError: Redis does not answer, or forgot.
            KafkaError: the broker did not take it, or a later owner has fenced us.
        """
        token = secrets.token_hex(8)
        meta, numbers = await self._store.begin_checkpoint(partition.number, token)
        mine = partition.meta
        if meta is None or mine is None or (meta.epoch, meta.incarnation) != (mine.epoch, mine.incarnation):
            return 0  # not ours, or being rebuilt: whose it is goes on with the numbers in hand
        if not numbers:
            return 0
        producer = await self._producer(partition.number)
        chunks = [numbers[begin : begin + _CHUNK] for begin in range(0, len(numbers), _CHUNK)]
        for chunk in chunks:
            records = await self._states(partition.number, meta, chunk)
            if chunk is chunks[-1]:
                records.append((_CHECKPOINT_KEY, _FORMAT + _encode(meta.applied)))
            async with asyncio.timeout(self._settings.publish_timeout_s), producer.transaction():
                await self._send(producer, partition.number, records)
        self.written += 1
        self.states += len(numbers)
        await self._store.end_checkpoint(partition.number, token)
        return len(numbers)

    async def _states(self, partition: int, meta: Meta, numbers: list[str]) -> list[tuple[bytes, bytes]]:
        """Number and state of some numbers, none of them older than ``meta``."""
        now, states = await self._store.raw_states(partition, numbers)
        if now is None or now.incarnation != meta.incarnation or now.is_behind(meta):
            raise StateError(f"partition {partition} changed hands or was rolled back during a checkpoint")
        found = [(number.encode(), _FORMAT + state) for number, state in zip(numbers, states, strict=True) if state is not None]
        if any(len(state) > _MOST_STATE_BYTES for _, state in found):
            raise StateError(f"partition {partition} has a number whose facts are too many for one record: no checkpoint")
        return found

    async def _send(self, producer: AIOKafkaProducer, partition: int, records: list[tuple[bytes, bytes]]) -> None:
        topic = self._settings.topic(STATES)
        outputs = [Output(topic, partition, key, value) for key, value in records]
        sent = [await producer.send_batch(batch, topic, partition=partition) for batch, _ in closed_batches(producer, outputs)]
        await asyncio.gather(*sent)

    async def _producer(self, partition: int) -> AIOKafkaProducer:
        if partition not in self._producers:
            producer = AIOKafkaProducer(
                **self._settings.kafka_client(),
                acks="all",
                transactional_id=f"{self._settings.group}-{STATES}-{partition}",
                transaction_timeout_ms=_TRANSACTION_MS,
                max_batch_size=_BATCH_BYTES,
                max_request_size=1_048_576,
            )
            self._producers[partition] = producer
            async with asyncio.timeout(self._settings.publish_timeout_s):
                await producer.start()
        return self._producers[partition]

    async def _drop_producer(self, partition: int) -> None:
        producer = self._producers.pop(partition, None)
        if producer is not None:
            try:
                async with asyncio.timeout(5):
                    await producer.stop()
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("a checkpoint's producer did not stop", partition=partition, reason=repr(error))
