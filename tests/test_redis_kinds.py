"""The Redis that a guard is given: behind Sentinel it may fail over; a cluster, a replica and a wrong address are refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_client
from redis.exceptions import RedisError

from rules.errors import CannotStart
from streams.embedded import EmbeddedRedis, free_port
from streams.state import Store
from tests.harness import guard_settings, running_guard
from tests.scene import REFERENCE, ask, consent, numbers, objection
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parent.parent


class Server:
    """A server of the Redis kind with options of the test's own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        folder.mkdir()
        arguments = [*options, "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([EmbeddedRedis._binary(), *arguments], cwd=folder, stdout=log, stderr=log)
        self.client = redis_client.Redis(port=self.port, decode_responses=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        with contextlib.suppress(RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """End it without notice; safe to call twice."""
        self._process.kill()
        self._process.wait()
        self.client.close()


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Server]:
    server = Server(folder, *options)
    try:
        yield server
    finally:
        server.kill()


def start_of_a_worker(redis_url: str) -> tuple[int, str]:
    """Exit code and last words of ``ringfence worker``; it looks at Redis before it looks for Kafka."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "worker"],
        cwd=ROOT,
        env={**os.environ, "RINGFENCE_REDIS": redis_url, "RINGFENCE_REDIS_TIMEOUT_S": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


# --- what is refused --------------------------------------------------------------------------------------------------------------


async def test_a_cluster_is_refused(tmp_path: Path) -> None:
    """One read spans partitions, which a cluster cannot answer."""
    with running(tmp_path / "cluster", "--cluster-enabled", "yes") as server:
        await wait_for(server.answers)
        code, words = start_of_a_worker(server.url)
    assert (code, "Redis Cluster is not supported" in words) == (3, True), words


async def test_a_replica_is_refused(tmp_path: Path) -> None:
    """It takes no writes; the message says what to give instead."""
    with running(tmp_path / "primary") as primary, running(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}") as replica:
        await wait_for(replica.answers)
        code, words = start_of_a_worker(replica.url)
    assert (code, "read-only replica: give the address of the primary" in words) == (3, True), words


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1/0", "RINGFENCE_REDIS: "),
        ("redis://127.0.0.1:port/0", "RINGFENCE_REDIS: "),
        ("redis+sentinel://127.0.0.1", "the name under which Sentinel knows the primary is missing"),
        ("redis+sentinel:///mymaster", "a Sentinel has no host name"),
        ("redis+sentinel://127.0.0.1:26379,/mymaster", "a Sentinel has no host name"),
        ("redis+sentinel://127.0.0.1:x/mymaster", "RINGFENCE_REDIS: "),
        ("redis+sentinel://127.0.0.1/mymaster?db=first", "RINGFENCE_REDIS: "),
        ("redis+sentinel://127.0.0.1/mymaster?database=1", "there is no option 'database'"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused(url: str, words: str) -> None:
    """With what is wrong and what it should look like."""
    with pytest.raises(CannotStart, match=r"want redis://HOST:PORT/DB or redis\+sentinel://") as refused:
        Store(guard_settings("127.0.0.1:9092", url, "t."))
    assert words in str(refused.value)


async def test_no_password_is_repeated(tmp_path: Path) -> None:
    """Neither of an address that cannot be read, nor of one where nobody answers."""
    for url in ("redis://:secret@127.0.0.1:1/0", "redis+sentinel://:secret@127.0.0.1:1/mymaster?sentinel_password=secret"):
        code, words = start_of_a_worker(url)
        assert (code, "secret" in words, "no Redis answers (RINGFENCE_REDIS)" in words) == (3, False, True), words


# --- Sentinel ---------------------------------------------------------------------------------------------------------------------


class Sentinels:
    """A primary, a replica and a Sentinel that notices within a second that the primary is gone."""

    def __init__(self, folder: Path, held: contextlib.ExitStack) -> None:
        policy = ("--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0")
        self.primary = held.enter_context(running(folder / "primary", *policy))
        self.replica = held.enter_context(running(folder / "replica", "--replicaof", f"127.0.0.1 {self.primary.port}", *policy))
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor mymaster 127.0.0.1 {self.primary.port} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 3000\n"
        )
        self.sentinel = held.enter_context(running(folder / "sentinel", str(settings), "--sentinel"))

    def url(self, name: str = "mymaster") -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{name}?db=0"

    def in_step(self) -> bool:
        """Whether all answer, the replica has what the primary has, and Sentinel knows of both."""
        return (
            self.primary.answers()
            and self.replica.answers()
            and self.sentinel.answers()
            and self.replica.client.info("replication")["master_link_status"] == "up"
            and len(self.sentinel.client.sentinel_slaves("mymaster")) == 1
        )

    def cut_the_replica_off(self) -> None:
        """From now on it gets nothing more: the primary asks for a password that it does not know. Whoever is connected stays so."""
        self.primary.client.config_set("requirepass", "changed")
        self.primary.client.client_kill_filter(_type="replica")


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[Sentinels]:
    with contextlib.ExitStack() as held:
        sentinels = Sentinels(tmp_path, held)
        await wait_for(sentinels.in_step, within_s=30)
        yield sentinels


async def test_a_name_that_sentinel_does_not_know_is_refused(sentinels: Sentinels) -> None:
    """And so is an address where no Sentinel listens: that of the primary."""
    code, words = start_of_a_worker(sentinels.url("other"))
    assert (code, "No master found for 'other'" in words) == (3, True), words
    code, words = start_of_a_worker(f"redis+sentinel://127.0.0.1:{sentinels.primary.port}/mymaster")
    assert (code, "no Redis answers (RINGFENCE_REDIS)" in words) == (3, True), words


@pytest.mark.broker
async def test_the_guard_follows_a_failover_and_misses_no_objection(kafka: str, prefix: str, sentinels: Sentinels) -> None:
    """The primary dies with an objection that its replica never got; it is read again from Kafka before anything is decided."""
    async with running_guard(kafka, sentinels.url(), prefix, barrier_timeout_s=15.0) as guard:
        objecting, of = numbers(2)
        await guard.client.put_all([*REFERENCE, consent(of), consent(objecting)])
        assert [(await ask(guard.client, one))["decision"] for one in (objecting, of)] == ["approved", "approved"]
        sentinels.cut_the_replica_off()
        await guard.client.put(*objection(objecting))
        assert (await ask(guard.client, objecting))["reasons"] == ["E_OBJECTION"]
        sentinels.primary.kill()
        assert (await ask(guard.client, objecting, within_s=60))["reasons"] == ["E_OBJECTION"]
        assert (await ask(guard.client, of))["decision"] == "approved"
        assert sentinels.replica.client.info("replication")["role"] == "master"
        await wait_for(lambda: guard.worker.ready, within_s=20)
