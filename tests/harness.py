"""A guard under test: a real worker on a real Kafka and Redis, with a clock that tests set, and a client of the wire contract."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from config.settings import Settings
from ops.worker import Worker
from rules.events import REFERENCE_KEYS
from rules.instants import parse_instant
from streams.topics import APPROVED, BLOCKED, REJECTED, ensure_topics
from tests.servers import wait_for

ROOT = Path(__file__).parent.parent

encode = msgspec.json.Encoder().encode


@dataclass
class SetClock:
    """A clock that stands where a test puts it."""

    instant: int = field(default_factory=lambda: parse_instant("2026-11-23T13:00:00Z"))

    def now(self) -> int:
        """The instant it was set to."""
        return self.instant

    def set(self, text: str) -> None:
        """Put the clock to an RFC 3339 instant."""
        self.instant = parse_instant(text)


def guard_settings(kafka: str, redis_url: str, prefix: str, **options: Any) -> Settings:
    """Settings of a guard of one test, on topics and keys of its own."""
    defaults = {"partitions": 4, "session_timeout_s": 6.0, "heartbeat_s": 1.0}
    return Settings(
        kafka=kafka, redis=redis_url, topic_prefix=prefix, group=prefix, redis_prefix=prefix, embedded=True, **{**defaults, **options}
    )


class Client:
    """A producer and reader of a guard's topics, as a dialler or a CRM would be."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.decisions: list[dict[str, Any]] = []
        self.records: list[Any] = []
        self.rejected: list[dict[str, Any]] = []
        self._by_request: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all", linger_ms=5, max_request_size=4 << 20)
        self._consumer = AIOKafkaConsumer(
            *(settings.topic(name) for name in (APPROVED, BLOCKED, REJECTED)),
            bootstrap_servers=settings.kafka,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
        )
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and read the outputs from their beginning."""
        await self._producer.start()
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Let go."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._producer.stop()
        await self._consumer.stop()

    async def put(self, topic: str, value: Mapping[str, Any]) -> Any:
        """Publish one event under its own key, acknowledged."""
        key = value[REFERENCE_KEYS.get(topic, "number")]
        return await self.put_raw(topic, key.encode(), encode(value))

    async def put_all(self, events: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Publish many events, in order within a number, and wait until all are acknowledged."""
        sent = []
        for topic, value in events:
            key = value[REFERENCE_KEYS.get(topic, "number")]
            sent.append(await self._producer.send(self.settings.topic(topic), encode(value), key.encode()))
        await asyncio.gather(*sent)

    async def put_raw(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None, headers: Any = None
    ) -> Any:
        """Publish any bytes, acknowledged. Returns where they are."""
        return await self._producer.send_and_wait(self.settings.topic(topic), value, key, partition=partition, headers=headers)

    async def decision(self, request_id: str, within_s: float = 20) -> dict[str, Any]:
        """The first decision of a request."""
        return (await self.decisions_of(request_id, 1, within_s))[0]

    async def decisions_of(self, request_id: str, count: int, within_s: float = 20) -> list[dict[str, Any]]:
        """The first ``count`` decisions of a request, repeats included."""
        await wait_for(lambda: len(self._of(request_id)) >= count, within_s=within_s)
        return self._of(request_id)

    def _of(self, request_id: str) -> list[dict[str, Any]]:
        if self._reading is not None and self._reading.done():
            self._reading.result()  # what ended it says why nothing comes any more
        return list(self._by_request.get(request_id, ()))

    async def _read(self) -> None:
        rejected = self.settings.topic(REJECTED)
        async for record in self._consumer:
            if record.topic == rejected:
                self.rejected.append(json.loads(record.value))
            else:
                self.records.append(record)
                decision = json.loads(record.value)
                self.decisions.append(decision)
                self._by_request[decision["request_id"]].append(decision)


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


async def ringfence(settings: dict[str, str], *words: str, typed: bytes = b"") -> Ended:
    """Run the command as an operator would, without a terminal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", *words),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **settings},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(typed)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@dataclass
class Running:
    """A running worker and the client beside it."""

    worker: Worker
    client: Client
    clock: SetClock


@asynccontextmanager
async def running_worker(settings: Settings, clock: SetClock | None = None) -> AsyncIterator[Worker]:
    """Run a worker in this process until the block ends; whatever ended it early is raised."""
    worker = Worker(settings)
    if clock is not None:
        worker.guard.clock = clock  # type: ignore[assignment]  # all that a clock is asked for is now()
    work = asyncio.create_task(worker.run())
    try:
        await wait_for(lambda: work.done() or worker.ready, within_s=30)
        if work.done():
            work.result()
        yield worker
    finally:
        worker.stop()
        await work
    if worker.failed is not None:
        raise worker.failed


@asynccontextmanager
async def running_guard(kafka: str, redis_url: str, prefix: str, **options: Any) -> AsyncIterator[Running]:
    """A worker and a client on fresh topics, with a clock that the test sets."""
    settings = guard_settings(kafka, redis_url, prefix, **options)
    await ensure_topics(settings)
    client, clock = Client(settings), SetClock()
    await client.start()
    try:
        async with running_worker(settings, clock) as worker:
            yield Running(worker, client, clock)
    finally:
        await client.stop()
