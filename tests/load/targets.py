"""What may be loaded: workers that this starts on some servers, a guard that runs already, or a gateway."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import redis.asyncio as redis
from aiokafka.errors import KafkaError

from benchmarks.client import Client
from benchmarks.loop import Sample, over_http, over_kafka
from benchmarks.measure import warm_up
from benchmarks.servers import PARTITIONS, Place, say
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.two_workers import Team
from benchmarks.waiting import until
from benchmarks.workload import Request, Workload
from config.settings import Settings
from rules.errors import CannotStart
from rules.instants import SECOND
from streams.topics import connected_admin

#: Runs the loop once, at a rate (requests a second) for some seconds.
Loop = Callable[[float, float], Awaitable[Sample]]

_REQUESTS = 20_000


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the load is made of.

    Attributes:
        numbers: people whose facts are on file; a guard that runs knows none of them.
        seed: the same seed gives the same people.
        grace_s: how long decisions are waited for after the last request.
    """

    numbers: int = 5_000
    seed: int = 1
    grace_s: float = 15.0


@asynccontextmanager
async def own_workers(kafka: str, redis_url: str, workers: int, sizing: Sizing) -> AsyncIterator[Loop]:
    """Workers, topics and made-up facts of our own on given servers; nothing of it is left there.

    Raises:
        CannotStart: a server does not answer.
        RuntimeError, TimeoutError: a worker ends, or does not get ready.
    """
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="ringfence-load-", ignore_cleanup_errors=True)))
        place = Place(kafka, redis_url, f"load-{secrets.token_hex(4)}-", folder)
        stage = Stage(place, Sizes(seed=sizing.seed, requests=_REQUESTS), sizing.numbers)
        try:
            say(f"making up the facts of {sizing.numbers:,} numbers")
            await stage.load()
            begins_s = stage.workload.clock_start_s - time.time()
            team = [running.enter_context(stage.worker(f"worker-{n}")) for n in range(1, workers + 1)]
            together = Team(team)

            async def all_taken() -> bool:
                return sum(worker.partitions_ready() for worker in team) == PARTITIONS

            await until(all_taken, f"{workers} workers are ready", together.check)
            stage.workload.dial_at = lambda: round((time.time() + begins_s) * SECOND)
            async with Client(stage.settings) as client:
                await warm_up(together, client, stage.workload, "warm")
                yield _kafka_loop(client, stage.workload, sizing)
                together.check()
        finally:
            running.close()
            await _removed(stage.settings)


@asynccontextmanager
async def running_guard(settings: Settings, sizing: Sizing) -> AsyncIterator[Loop]:
    """A guard that runs already. It gets call requests alone, about made-up people that it does not know.

    Raises:
        CannotStart: Kafka does not answer.
    """
    try:
        async with Client(settings) as client:
            yield _kafka_loop(client, _of_now(sizing, settings.partitions), sizing)
    except (KafkaError, OSError) as error:
        raise CannotStart(f"Kafka at {settings.kafka}: {error!r}") from None


@asynccontextmanager
async def gateway(url: str, key: str, sizing: Sizing) -> AsyncIterator[Loop]:
    """A gateway that runs already, asked for one call at a time over connections that are kept."""
    workload, run = _of_now(sizing, 1), secrets.token_hex(4)
    timeout = aiohttp.ClientTimeout(total=sizing.grace_s)
    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:

        async def loop(rate: float, seconds: float) -> Sample:
            requests = _requests(workload, run, rate, seconds)
            return await over_http(session, f"{url.rstrip('/')}/v1/call-requests", requests, rate, sizing.grace_s)

        yield loop


def _kafka_loop(client: Client, workload: Workload, sizing: Sizing) -> Loop:
    run = secrets.token_hex(4)

    async def loop(rate: float, seconds: float) -> Sample:
        return await over_kafka(client, _requests(workload, run, rate, seconds), rate, sizing.grace_s)

    return loop


def _requests(workload: Workload, run: str, rate: float, seconds: float) -> Iterator[Request]:
    """Under ids that no other run has: a guard answers an id that it knows from memory."""
    return workload.open_loop(f"load-{run}-{rate:g}", round(rate * seconds))


def _of_now(sizing: Sizing, partitions: int) -> Workload:
    """Requests of people of today, to be dialled at once."""
    workload = Workload(sizing.seed, sizing.numbers, min(_REQUESTS, 4 * sizing.numbers), partitions, start=_now())
    workload.dial_at = _now
    return workload


def _now() -> int:
    return time.time_ns() // 1000


async def _removed(settings: Settings) -> None:
    """Take away topics and keys of our own."""
    admin = await connected_admin(settings)
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if name.startswith(settings.topic_prefix)])
    finally:
        await admin.close()
    async with redis.Redis.from_url(settings.redis.get_secret_value()) as client:
        async for key in client.scan_iter(match=f"{settings.redis_prefix}:*", count=1000):
            await client.unlink(key)
