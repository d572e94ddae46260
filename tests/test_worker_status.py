"""What workers say of themselves in Redis: all of them, soon, and without anybody having to wait for it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from time import monotonic
from types import SimpleNamespace

import pytest
import redis as sync_redis
import redis.asyncio as redis

from config.settings import Settings
from ops import worker_status
from ops.worker_status import StatusReport, WorkerStatus, workers
from rules.errors import StateError
from streams.embedded import free_port
from streams.state import Store
from streams.topics import ensure_topics
from tests.harness import Running, guard_settings, running_worker
from tests.scene import ask, consent, numbers, running_scene
from tests.servers import wait_for

pytestmark = pytest.mark.broker


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    """A connection as the gateway has one."""
    client = redis.Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def found(client: redis.Redis, guard: Running) -> list[WorkerStatus]:
    """The workers of a guard."""
    return await workers(client, guard.client.settings.redis_prefix)


def unconnected(settings: Settings) -> StatusReport:
    """The report of a worker that is not there."""
    guard = SimpleNamespace(settings=settings, book=SimpleNamespace(version="nl@0"), ownership=SimpleNamespace(all=[]))
    return StatusReport(guard, SimpleNamespace(records={}), SimpleNamespace(ready=True, reasons=[]))


async def test_a_worker_tells_of_itself(kafka: str, redis_url: str, client: redis.Redis) -> None:
    """Who it is, what it owns, how far it is; the next look finds it ready."""
    async with running_scene(kafka, redis_url, partitions=2) as guard:
        (of,) = numbers(1)
        await guard.client.put_all([consent(of)])
        assert (await ask(guard.client, of))["decision"] == "approved"

        async def ready() -> WorkerStatus | None:
            return next((one for one in await found(client, guard) if one.ready), None)

        seen = await wait_for(ready, within_s=10)
        assert (seen.partitions, seen.reasons, seen.rulebook) == ([0, 1], [], guard.worker.guard.book.version)
        assert seen.lag.keys() >= {"call-requests", "objections", "parties"}
        assert seen.started_at <= seen.seen_at
        prefix = guard.client.settings.redis_prefix
        assert 0 < await client.pttl(f"{prefix}:worker:{seen.id}") <= 10_000


async def test_one_that_is_not_ready_says_why(kafka: str, redis_url: str, client: redis.Redis) -> None:
    """With code and text, as readiness has them."""
    async with running_scene(kafka, redis_url, partitions=1) as guard:
        guard.worker._readiness._topics_wrong = ["call-requests: deleted"]

        async def told() -> list[tuple[str, str]]:
            return [(reason.code, reason.text) for one in await found(client, guard) for reason in one.reasons]

        assert await wait_for(told, within_s=10) == [("topics", "call-requests: deleted")]


async def test_two_workers_are_two(kafka: str, redis_url: str, prefix: str, redis_prefix: str, client: redis.Redis) -> None:
    """Of one host and one process, in these tests. Keys that went are written again; who has ended is gone at once."""
    settings = guard_settings(kafka, redis_url, prefix)
    await ensure_topics(settings)
    async with running_worker(settings), running_worker(settings):

        async def owned() -> bool:
            return sorted(len(one.partitions) for one in await workers(client, prefix)) == [2, 2]

        await wait_for(owned, within_s=30)
        await client.delete(*[key async for key in client.scan_iter(match=f"{prefix}:worker*")])
        await wait_for(owned, within_s=10)
    assert [key async for key in client.scan_iter(match=f"{prefix}:worker*")] == []


async def test_nothing_that_looks_for_numbers_finds_a_worker(
    kafka: str, redis_url: str, prefix: str, redis_prefix: str, client: redis.Redis
) -> None:
    """The state is scanned for numbers, and a partition is forgotten by pattern."""
    report, store = unconnected(guard_settings(kafka, redis_url, prefix)), Store(guard_settings(kafka, redis_url, prefix))
    await report._write()
    assert [one async for one in store.numbers()] == []
    for partition in range(4):
        await store.forget(partition)
    assert len(await workers(client, prefix)) == 1
    await store.close()
    await report.stop()


async def test_what_is_no_status_any_more_is_passed_over(
    kafka: str, redis_url: str, prefix: str, redis_prefix: str, client: redis.Redis
) -> None:
    """A worker that died is listed for an hour, and without a status after 10 s; one of another version may write something else."""
    report = unconnected(guard_settings(kafka, redis_url, prefix))
    await report._write()
    await client.zadd(f"{prefix}:workers", {"dead": 1, "foreign": 9e9})
    await client.set(f"{prefix}:worker:foreign", b'{"id":"foreign"}')
    assert [one.id for one in await workers(client, prefix)] == [report._first.id]
    await report._write()
    assert await client.zscore(f"{prefix}:workers", "dead") is None
    await report.stop()


async def test_a_redis_that_is_away_holds_nobody_up(kafka: str) -> None:
    """Neither a write nor the end; who asks for the workers is told."""
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    report = unconnected(guard_settings(kafka, nobody, "t-nobody."))
    began = monotonic()
    await report._write()
    await report.stop()
    assert monotonic() - began < 5
    client = redis.Redis.from_url(nobody)
    with pytest.raises(StateError, match="Redis does not answer"):
        await workers(client, "t-nobody.")
    await client.aclose()


async def test_a_redis_that_hangs_holds_nobody_up(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing: a write gives up, and so does the end."""
    monkeypatch.setattr(worker_status, "_ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        report = unconnected(guard_settings(kafka, f"redis://127.0.0.1:{port}/0", "t-silent."))
        began = monotonic()
        await report._write()
        await report.stop()
        assert monotonic() - began < 2


async def test_a_redis_that_takes_no_writes_ends_nobody(kafka: str, redis_url: str, client: redis.Redis) -> None:
    """Full, or a replica: the report is not written, and the worker goes on."""
    async with running_scene(kafka, redis_url, partitions=1) as guard:
        key = f"{guard.client.settings.redis_prefix}:workers"
        with sync_redis.Redis.from_url(redis_url) as other:
            other.delete(key)
            other.set(key, "of another kind")  # so that every write of the list is an error of Redis
        await guard.worker._status._write()
        assert guard.worker.failed is None
        (of,) = numbers(1)
        await guard.client.put_all([consent(of)])
        assert (await ask(guard.client, of))["decision"] == "approved"
