"""The other side of a contender: writes requests to its topics and reads what it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.bulk import Record, producer_for, put
from benchmarks.waiting import WITHIN_S, until
from benchmarks.workload import Request
from config.settings import Settings
from rules.events import REQUEST_TOPIC
from streams.topics import APPROVED, BLOCKED

_COUNT_EVERY_S = 0.05
_BATCH_BYTES = 900_000
_TICK_S = 0.0005


class Answer(msgspec.Struct):
    """What is compared of a decision; an echoed request has nothing but its id."""

    request_id: str
    decision: str | None = None
    basis: str | None = None
    reasons: list[str] = []
    warnings: list[str] = []
    regime: str | None = None


_decode = msgspec.json.Decoder(Answer).decode


class Answered(NamedTuple):
    """An answer, when the broker took it in (seconds since 1970) and when it was read (seconds of the monotonic clock)."""

    answer: Answer
    logged_at: float
    read_at: float


class Client:
    """Use as an asynchronous context manager. ``answered`` holds the first answer to every request, by id."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.answered: dict[str, Answered] = {}
        self._producer = producer_for(settings, _BATCH_BYTES)
        self._consumer = AIOKafkaConsumer(**settings.kafka_client(), auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20)
        self._outputs = [
            TopicPartition(settings.topic(name), number) for name in (APPROVED, BLOCKED) for number in range(settings.partitions)
        ]

    async def __aenter__(self) -> Self:
        try:
            await self._producer.start()
            await self._consumer.start()
            self._consumer.assign(self._outputs)
            await self._consumer.seek_to_end()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._consumer.stop()

    async def count(self) -> int:
        """How many decisions the topics hold; the broker counts them, so that reading does not compete with whoever is measured."""
        return sum((await self._consumer.end_offsets(self._outputs)).values())

    async def write(self, requests: Iterable[Request]) -> None:
        """Write requests as fast as the broker takes them, in order within a partition, and wait for the acknowledgements."""
        topic = self._settings.topic(REQUEST_TOPIC)
        await put(self._producer, (Record(topic, request.partition, request.key, request.value) for request in requests))

    async def write_at(self, requests: Iterable[Request], rate: float) -> dict[str, float]:
        """Write requests one by one, request *n* at ``start + n / rate`` whether or not anybody keeps up.

        Returns: when each was due (seconds of the monotonic clock), by id.
        """
        topic, due = self._settings.topic(REQUEST_TOPIC), dict[str, float]()
        start = time.monotonic()
        for index, request in enumerate(requests):
            due[request.request_id] = at = start + index / rate
            if (wait := at - time.monotonic()) > 0:
                await asyncio.sleep(max(wait, _TICK_S))
            await self._producer.send(topic, request.value, request.key, partition=request.partition)
            if index % 20 == 0:
                await asyncio.sleep(0)  # a loop that is behind never waits above: let answers be read
        return due

    async def read(self) -> None:
        """Read answers as they come, until cancelled."""
        while True:
            self._note(await self._consumer.getmany(timeout_ms=200))

    async def read_until(self, wanted: set[str], check: Callable[[], None]) -> None:
        """Read answers until every wanted request has one.

        Raises:
            TimeoutError: some have none within the time.
        """
        deadline = time.monotonic() + WITHIN_S
        missing = wanted - self.answered.keys()
        while missing:
            check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(missing)} of {len(wanted)} requests without an answer after {WITHIN_S:.0f} s")
            self._note(await self._consumer.getmany(timeout_ms=200))
            missing -= self.answered.keys()

    async def counted(self, total: int, check: Callable[[], None]) -> None:
        """Wait until the topics hold so many decisions.

        Raises:
            TimeoutError: they do not within the time.
        """

        async def there() -> bool:
            return await self.count() >= total

        await until(there, f"{total:,} decisions in the topics", check, every_s=_COUNT_EVERY_S)

    async def committed(self, topics: Iterable[str], check: Callable[[], None]) -> None:
        """Wait until the contender has committed topics to their ends, so that it has them, and begins after them at its next start.

        Raises:
            TimeoutError: it has not within the time.
        """
        partitions = [
            TopicPartition(self._settings.topic(name), number) for name in topics for number in range(self._settings.partitions)
        ]
        looker = AIOKafkaConsumer(**self._settings.kafka_client(), group_id=self._settings.group, enable_auto_commit=False)
        await looker.start()
        try:
            looker.assign(partitions)
            ends = await looker.end_offsets(partitions)

            async def done() -> bool:
                return all([(await looker.committed(tp) or 0) >= ends[tp] for tp in partitions])

            await until(done, f"{self._settings.group} commits {', '.join(topics)} to the end", check, every_s=0.2)
        finally:
            await looker.stop()

    def _note(self, fetched: dict[Any, list[Any]]) -> None:
        now = time.monotonic()
        for records in fetched.values():
            for record in records:
                answer = _decode(record.value)
                self.answered.setdefault(answer.request_id, Answered(answer, record.timestamp / 1000, now))
