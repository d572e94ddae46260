"""A worker that says it is ready is; one that is not says why, and says so again when that changes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NodeNotReadyError

import ops.readiness
import streams.clocks
from ops.ready_file import ReadyFile, Reason, why_not_ready
from rules.errors import CannotStart, Stuck
from streams.clocks import Clocks, Comparison
from streams.embedded import EmbeddedRedis
from streams.lag import Log
from streams.state import Store
from tests.harness import Running
from tests.scene import ask, consent, home, numbers, objection, request, running_scene
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parent.parent


def codes(guard: Running) -> set[str]:
    """Why the guard is not ready now."""
    return {reason.code for reason in guard.worker._readiness.reasons or ()}


def said(guard: Running, code: str) -> str:
    """What it says about one reason; AssertionError while it does not give it."""
    texts = [reason.text for reason in guard.worker._readiness.reasons or () if reason.code == code]
    assert texts, codes(guard)
    return texts[0]


@pytest.fixture
async def guard(kafka: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A guard that bears one second of lag."""
    monkeypatch.setattr(ops.readiness, "_LATE_S", 1.0)
    async with running_scene(kafka, redis_url, barrier_timeout_s=0.5) as guard:
        yield guard


@pytest.fixture
def own_redis() -> Any:
    """A Redis that a test may stop and misconfigure."""
    with EmbeddedRedis() as server:
        yield server


# --- logs, without a server ------------------------------------------------------------------------------------------------------


def test_a_log_that_is_worked_off_is_never_late_however_much_comes() -> None:
    """A hundred records a second come and go within a second; the first look's records have to be worked off once."""
    log = Log("objections", 0)
    log.look(done=0, end=100, readable=100, now=10.0, served_s=0.5)
    assert (log.caught_up, log.late_s(10.0)) == (False, 0.0)
    for second in range(1, 60):
        log.look(done=100 * second, end=100 * second + 100, readable=100 * second + 100, now=10.0 + second, served_s=1.0)
        assert log.caught_up
        assert log.late_s(10.0 + second) == 0.0


def test_a_log_is_late_since_something_was_seen_that_is_not_worked_off() -> None:
    """One record of twelve is left; what came after it does not count, nor that others went."""
    log = Log("objections", 0)
    log.look(done=0, end=0, readable=0, now=10.0, served_s=0.5)
    log.look(done=0, end=12, readable=12, now=11.0, served_s=1.0)
    log.look(done=11, end=20, readable=20, now=12.0, served_s=1.0)
    log.look(done=11, end=30, readable=30, now=17.0, served_s=1.0)
    assert log.late_s(17.0) == 6.0
    log.look(done=12, end=30, readable=30, now=18.0, served_s=1.0)
    assert log.late_s(18.0) == 0.0


def test_a_log_that_begins_again_has_to_catch_up() -> None:
    """The state was lost and is read again from the beginning."""
    log = Log("objections", 0)
    log.look(done=12, end=12, readable=12, now=10.0, served_s=0.5)
    assert log.caught_up
    log.look(done=0, end=12, readable=12, now=11.0, served_s=0.5)
    assert not log.caught_up
    log.look(done=12, end=12, readable=12, now=12.0, served_s=0.5)
    assert log.caught_up


def test_only_time_in_which_the_servers_answer_counts_as_standing_still() -> None:
    """And only what can be read: nobody gets past an open transaction."""
    log = Log("call-requests", 0)
    log.look(done=5, end=9, readable=9, now=10.0, served_s=1.0)
    log.look(done=5, end=9, readable=9, now=11.0, served_s=1.0)
    log.look(done=5, end=9, readable=9, now=71.0, served_s=0.0)
    assert log.stood_s == 1.0
    log.look(done=6, end=9, readable=9, now=72.0, served_s=1.0)
    assert log.stood_s == 0.0
    log.look(done=6, end=9, readable=6, now=73.0, served_s=1.0)
    assert log.stood_s == 0.0


# --- a running guard --------------------------------------------------------------------------------------------------------------


def hanging(until: asyncio.Event, work: Any) -> Any:
    """The same work, begun when the event is set."""

    async def begin(*arguments: Any) -> Any:
        await until.wait()
        return await work(*arguments)

    return begin


@pytest.mark.broker
async def test_facts_that_are_not_applied_make_it_unready_until_they_are(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was ready, and lag comes later: nothing latches."""
    go_on, store = asyncio.Event(), guard.worker.guard.store
    monkeypatch.setattr(store, "write_facts", hanging(go_on, store.write_facts))
    assert guard.worker.ready
    await guard.client.put_all(map(consent, numbers(20)))
    await wait_for(lambda: "records behind" in said(guard, "facts-lag"), within_s=15)
    assert not guard.worker.ready
    go_on.set()
    await wait_for(lambda: guard.worker.ready, within_s=15)


@pytest.mark.broker
async def test_requests_that_wait_make_it_unready_until_they_are_decided(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that does not end, with servers that answer; the sentence says for how long."""
    go_on, store = asyncio.Event(), guard.worker.guard.store
    monkeypatch.setattr(store, "admit", hanging(go_on, store.admit))
    (of,) = numbers(1, partition=2)
    await guard.client.put("call-requests", request(of))
    await wait_for(lambda: said(guard, "requests-wait").startswith("partition 2: 1 requests, the first for "), within_s=15)
    go_on.set()
    await wait_for(lambda: guard.worker.ready, within_s=15)


@pytest.mark.broker
async def test_a_partition_that_is_rebuilt_is_named(kafka: str, redis_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis was flushed; until the partition is ours again the worker says which one it is."""
    async with running_scene(kafka, redis_db) as guard:
        go_on, store = asyncio.Event(), guard.worker.guard.store
        monkeypatch.setattr(store, "take_over", hanging(go_on, store.take_over))
        with redis_client.Redis.from_url(redis_db) as flushing:
            flushing.flushdb()
        (of,) = numbers(1, partition=3)
        asked = request(of)
        await guard.client.put("call-requests", asked)
        await wait_for(lambda: "partition 3 " in said(guard, "rebuilding"), within_s=15)
        go_on.set()
        await guard.client.decision(asked["request_id"])
        await wait_for(lambda: guard.worker.ready, within_s=15)


@pytest.mark.broker
async def test_a_worker_without_its_partitions_is_not_ready(guard: Running) -> None:
    """From the moment at which the group takes them away until it gives some again."""
    worker = guard.worker
    await worker._on_revoked(worker.app, set())
    await wait_for(lambda: codes(guard) == {"unassigned"}, within_s=5)
    assigned = await worker.app.consumer._thread.call_thread(lambda: _assignment(worker))
    await worker._on_assigned(worker.app, assigned)
    await wait_for(lambda: worker.ready, within_s=15)


async def _assignment(worker: Any) -> set[Any]:
    return set(worker.app.consumer._thread._consumer.assignment())


@pytest.mark.broker
async def test_a_redis_that_hangs_or_dies_is_named(kafka: str, own_redis: EmbeddedRedis) -> None:
    """SIGSTOP, then kill -9; a new one on its port is good again."""
    async with running_scene(kafka, own_redis.url, redis_timeout_s=0.5) as guard:
        os.kill(own_redis.pid, signal.SIGSTOP)
        await wait_for(lambda: codes(guard) == {"redis-away"}, within_s=10)
        os.kill(own_redis.pid, signal.SIGCONT)
        await wait_for(lambda: guard.worker.ready, within_s=10)
        own_redis.kill()
        await wait_for(lambda: codes(guard) == {"redis-away"}, within_s=10)
        own_redis.start()
        await wait_for(lambda: guard.worker.ready, within_s=30)


@pytest.mark.broker
async def test_a_broker_that_does_not_answer_is_named(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it says that it cannot, or says nothing at all."""

    async def refuse(*_: Any) -> Any:
        raise NodeNotReadyError

    for answer in (refuse, hanging(asyncio.Event(), refuse)):
        with monkeypatch.context() as patched:
            patched.setattr(guard.worker.guard.barrier._consumer, "end_offsets", answer)
            await wait_for(lambda: codes(guard) == {"kafka-away"}, within_s=10)
        await wait_for(lambda: guard.worker.ready, within_s=10)


# --- standing still ---------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
async def test_a_worker_that_stands_still_although_the_servers_answer_ends(
    kafka: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn never ends: whoever supervises the worker starts it anew."""
    monkeypatch.setattr(ops.readiness, "_STUCK_S", 2.0)
    monkeypatch.setattr(ops.readiness, "_FAILED_LATELY_S", 0.0)
    with pytest.raises(Stuck, match=r"call-requests/\d: nothing was worked off"):  # noqa: PT012  # it is raised when the scene ends
        async with running_scene(kafka, redis_url, barrier_timeout_s=0.5, publish_timeout_s=0.5) as guard:
            monkeypatch.setattr(guard.worker.guard.store, "admit", hanging(asyncio.Event(), None))
            await guard.client.put("call-requests", request(*numbers(1)))
            await wait_for(lambda: guard.worker.failed, within_s=30)


@pytest.mark.broker
async def test_a_worker_that_waits_for_redis_does_not_end(
    kafka: str, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no writes for longer than a worker may stand still, though it answers; then the request is decided."""
    monkeypatch.setattr(ops.readiness, "_LATE_S", 0.5)
    monkeypatch.setattr(ops.readiness, "_STUCK_S", 1.0)
    async with running_scene(kafka, own_redis.url, barrier_timeout_s=0.25, publish_timeout_s=0.5) as guard:
        (of,) = numbers(1)
        await guard.client.put(*consent(of))
        assert (await ask(guard.client, of))["decision"] == "approved"
        with redis_client.Redis.from_url(own_redis.url) as full:
            full.config_set("maxmemory", 1)
            asked = request(of)
            await guard.client.put("call-requests", asked)
            started = time.monotonic()
            await wait_for(lambda: "requests-wait" in codes(guard) and time.monotonic() - started > 4, within_s=20)
            assert guard.worker.failed is None
            full.config_set("maxmemory", 0)
        assert (await guard.client.decision(asked["request_id"]))["decision"] == "approved"


# --- clocks -----------------------------------------------------------------------------------------------------------------------


class Hands:
    """Clocks of this process that a test sets; a server's clock is ``right``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed, self.shift = 100.0, 0.0
        monkeypatch.setattr(streams.clocks, "steady", lambda: self.passed)
        monkeypatch.setattr(streams.clocks, "system", lambda: self.right + self.shift)

    @property
    def right(self) -> float:
        return 1_000_000.0 + self.passed


def test_only_what_no_delay_explains_counts_as_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer took three seconds: the server may have stamped it at any time between."""
    hands, clock = Hands(monkeypatch), Comparison()
    assert clock.ahead() == 0.0
    for shift, expected in ((0.0, 0.0), (1.0, 0.0), (-2.0, 0.0), (5.0, -4.0), (-5.0, 3.0)):
        hands.shift, asked = shift, hands.passed
        stamp = hands.right + 1.0
        hands.passed += 3.0
        clock.answered(stamp, stamp, asked)
        assert clock.ahead() == pytest.approx(expected)


def test_a_step_of_our_own_clock_shows_without_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle worker asks no broker; it is put right as it was put wrong."""
    hands, clock = Hands(monkeypatch), Comparison()
    clock.answered(hands.right, hands.right, hands.passed)
    clocks = Clocks(2.0, {"the broker's": clock})
    hands.passed += 3600
    assert clocks.differing() == {}
    hands.shift = -30.0
    assert clocks.differing() == {"the broker's": pytest.approx(30.0)}
    hands.shift = 0.0
    assert clocks.differing() == {}


def test_a_record_from_the_future_shows_that_we_are_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old record shows nothing; and one broker of two that is wrong is enough."""
    hands, clock = Hands(monkeypatch), Comparison()
    clock.seen(hands.right - 50_000)
    assert clock.ahead() == 0.0
    clock.seen(hands.right + 7)
    assert clock.ahead() == pytest.approx(7.0)
    clock.answered(hands.right, hands.right, hands.passed)
    assert clock.ahead() == 0.0
    clock.answered(hands.right - 9, hands.right, hands.passed)
    assert clock.ahead() == pytest.approx(-9.0)


@pytest.mark.broker
@pytest.mark.parametrize("shift", [-3600.0, 3.0])
async def test_a_wrong_clock_approves_nothing(guard: Running, monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    """From the next decision on, and until it is right; both servers are named."""
    (of,) = numbers(1)
    await guard.client.put(*consent(of))
    assert (await ask(guard.client, of))["decision"] == "approved"
    with monkeypatch.context() as patched:
        patched.setattr(streams.clocks, "system", lambda: time.time() + shift)
        assert (await ask(guard.client, of))["reasons"] == ["S_STATE_UNAVAILABLE"]
        await wait_for(lambda: said(guard, "clock"), within_s=10)
        assert set(guard.worker.guard.clocks.differing()) == {"the broker's", "Redis'"}
    assert (await ask(guard.client, of))["decision"] == "approved"
    await wait_for(lambda: guard.worker.ready, within_s=10)


# --- topics that change -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    yield admin
    await admin.close()


@pytest.mark.broker
async def test_facts_that_are_no_longer_kept_for_ever_stop_every_approval(
    guard: Running, admin: AIOKafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody sets a retention on objections; when it is taken back, decisions go on."""
    monkeypatch.setattr(ops.readiness, "_TOPICS_EVERY_S", 0.2)
    worker, (of,) = guard.worker, numbers(1)
    worker._readiness._tasks.start(worker._readiness._check_topics())
    await guard.client.put(*consent(of))
    topic = guard.client.settings.topic("objections")
    for retention, expected in (("86400000", ["S_STATE_STALE"]), ("-1", [])):
        config = {"retention.ms": retention, "message.timestamp.type": "LogAppendTime"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
        await wait_for(lambda ready=expected == []: guard.worker.ready == ready, within_s=10)
        assert (await ask(guard.client, of))["reasons"] == expected
        if expected:
            assert "objections: retention.ms is 86400000" in said(guard, "topics")


@pytest.mark.broker
async def test_a_topic_that_grew_stops_every_approval(
    guard: Running, admin: AIOKafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One topic has a fifth partition, which no fact topic has: every request is answered all the same, and the answer is no."""
    monkeypatch.setattr(ops.readiness, "_TOPICS_EVERY_S", 0.2)
    worker, (of,) = guard.worker, numbers(1)
    worker._readiness._tasks.start(worker._readiness._check_topics())
    await guard.client.put(*consent(of))
    assert (await ask(guard.client, of))["decision"] == "approved"
    await admin.create_partitions({guard.client.settings.topic("call-requests"): NewPartitions(5)})
    members = worker.app.consumer._thread._consumer

    async def has_the_fifth() -> bool:
        await worker.app.consumer._thread.call_thread(members._client.force_metadata_update)
        return worker.guard.ownership.get(4) is not None

    await wait_for(has_the_fifth, within_s=20)
    await wait_for(lambda: "5 partitions, not 4" in said(guard, "topics"), within_s=10)
    await guard.client._producer.client.force_metadata_update()
    for partition in (home(of, 4), 4):
        asked = request(of)
        await guard.client.put_raw("call-requests", of.encode(), json.dumps(asked).encode(), partition=partition)
        assert (await guard.client.decision(asked["request_id"]))["reasons"] == ["S_STATE_STALE"]
    await wait_for(lambda: "kafka-away" not in codes(guard), within_s=20)


# --- a Redis that forgets by itself -----------------------------------------------------------------------------------------------


@pytest.mark.broker
async def test_a_redis_that_may_evict_approves_nothing(kafka: str, own_redis: EmbeddedRedis) -> None:
    """Its policy is changed while the guard runs, and changed back before it has evicted anything."""
    async with running_scene(kafka, own_redis.url) as guard:
        (of,) = numbers(1)
        await guard.client.put(*consent(of))
        with redis_client.Redis.from_url(own_redis.url) as changing:
            changing.config_set("maxmemory-policy", "allkeys-lru")
            await wait_for(lambda: codes(guard) == {"redis-policy"}, within_s=5)
            assert (await ask(guard.client, of))["reasons"] == ["S_STATE_UNAVAILABLE"]
            changing.config_set("maxmemory-policy", "noeviction")
        await wait_for(lambda: guard.worker.ready, within_s=5)
        assert (await ask(guard.client, of))["decision"] == "approved"


@pytest.mark.broker
async def test_a_redis_that_evicted_is_not_trusted_before_its_state_is_dropped(kafka: str, own_redis: EmbeddedRedis) -> None:
    """The objection is gone and nothing else shows it; not even the count, once it is reset. A new worker does not start on it."""
    async with running_scene(kafka, own_redis.url, barrier_timeout_s=15.0) as guard:
        (of,) = numbers(1)
        await guard.client.put_all([consent(of), objection(of)])
        assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]
        with redis_client.Redis.from_url(own_redis.url) as evicting:
            evicting.config_set("maxmemory-policy", "allkeys-lru")
            evicting.config_set("maxmemory", 1)
            await wait_for(lambda: evicting.info("stats")["evicted_keys"], within_s=5)
            evicting.config_set("maxmemory", 0)
            evicting.config_set("maxmemory-policy", "noeviction")
            await wait_for(lambda: codes(guard) == {"redis-evicted"}, within_s=10)
            evicting.config_resetstat()
            assert (await ask(guard.client, of))["reasons"] == ["S_STATE_UNAVAILABLE"]
            assert codes(guard) == {"redis-evicted"}
            store = Store(guard.client.settings)
            with pytest.raises(CannotStart, match="evicted keys"):
                await store.check()
            await store.close()
            evicting.flushdb()
        await wait_for(lambda: guard.worker.ready, within_s=30)
        assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]


# --- the readiness file -----------------------------------------------------------------------------------------------------------


def ready_command(path: Path) -> tuple[int, str]:
    """Exit code and output of ``ringfence ready``."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "ready"],
        cwd=ROOT,
        env={**os.environ, "RINGFENCE_READY_FILE": str(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stdout


@pytest.mark.broker
async def test_the_file_tells_the_health_check_what_the_worker_found(
    kafka: str, own_redis: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready, not ready with its reason, and the end of the worker; the time of change is that of the last time it was ready."""
    path = tmp_path / "ready"
    assert ready_command(path) == (1, f"not ready: {path}: No such file or directory\n")
    monkeypatch.setenv("RINGFENCE_READY_FILE", str(path))
    async with running_scene(kafka, own_redis.url) as guard:
        await wait_for(lambda: ready_command(path) == (0, "ready\n"), within_s=5)
        assert json.loads(path.read_text())["partitions"] == 4
        assert abs(time.time() - path.stat().st_mtime) < 5
        own_redis.kill()
        await wait_for(lambda: codes(guard) == {"redis-away"}, within_s=10)
        await wait_for(lambda: ready_command(path)[0] == 1, within_s=5)
        assert ready_command(path)[1].startswith("not ready: redis-away: ")
        before = path.stat()
        await wait_for(lambda: path.stat().st_ino != before.st_ino, within_s=5)
        assert path.stat().st_mtime == before.st_mtime
        own_redis.start()
    assert ready_command(path) == (1, "not ready: stopping: the worker ends\n")


def test_a_worker_that_says_nothing_more_is_not_ready(tmp_path: Path) -> None:
    """Its last word was that it is; that was eleven seconds ago. Nor is a file good that no worker wrote."""
    path = tmp_path / "ready"
    ReadyFile(path).write([], 4)
    assert why_not_ready(path) == []
    state = json.loads(path.read_text())
    at = state["at"].replace(state["at"][:4], "2020")
    path.write_text(json.dumps({**state, "at": at}))
    assert why_not_ready(path)[0].startswith("the worker has not said anything for ")
    ReadyFile(path).write([Reason("facts-lag", "objections/3 is 1,204 records behind")], 4)
    assert why_not_ready(path) == ["facts-lag: objections/3 is 1,204 records behind"]
    path.write_text("")
    assert why_not_ready(path) == [f"{path} is not what a worker writes"]
