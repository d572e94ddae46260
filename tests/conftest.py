"""Fixtures that every test may use: a real Kafka and Redis, and names of its own on them."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis as redis_client

from tests.servers import Servers

SERVERS = pytest.StashKey[Servers]()
#: What the processes used that a session is shared among (``make test JOBS=2``).
USED_BESIDE = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Forget the developer's guard: only ``RINGFENCE_TEST_*`` may steer a test, also in the processes that it starts.

    Ctrl-C, too, reaches them: what a shell starts in the background ignores it, and so would everything that is started from there.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name.startswith("RINGFENCE_") and not name.startswith("RINGFENCE_TEST_"):
            del os.environ[name]
    config.stash[SERVERS] = Servers()
    config.stash[USED_BESIDE] = {}


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Say where the servers will come from, and what is left out. pytest's own header is not shown with -q."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    servers = session.config.stash[SERVERS]
    reporter.write_line(f"servers: Kafka: {servers.plan('Kafka')}, Redis: {servers.plan('Redis')}")
    if session.config.option.markexpr == "not containers":
        reporter.write_line("not run here: tests marked `containers` (make test-containers)")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the session that this process is a part of which servers it used."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["servers"] = session.config.stash[SERVERS].used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it."""
    used = getattr(node, "workeroutput", {}).get("servers", {})
    node.config.stash[USED_BESIDE] |= {f"{name} of {node.gateway.id}": where for name, where in used.items()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out and why, and which servers were used: where the plan did not work out, the next in order stood in."""
    skipped = (report.longrepr for report in terminalreporter.stats.get("skipped", ()))
    for reason in sorted({where[2].removeprefix("Skipped: ") for where in skipped if isinstance(where, tuple)}):
        terminalreporter.write_line(f"left out: {reason}")
    used = config.stash[SERVERS].used | config.stash[USED_BESIDE]
    if used:
        terminalreporter.write_line("servers used: " + ", ".join(f"{name}: {where}" for name, where in used.items()))


@pytest.fixture(autouse=True)
def _no_setting_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what an earlier test may have left in the environment."""
    for name in list(os.environ):
        if name.startswith("RINGFENCE_") and not name.startswith("RINGFENCE_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[Servers]:
    """The session's servers; nothing runs until an address is asked for."""
    servers = pytestconfig.stash[SERVERS]
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def kafka(servers: Servers) -> str:
    """Bootstrap address ``host:port`` of a real Kafka."""
    return servers.address("Kafka")


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """URL of a real Redis. It is everybody's: use ``redis_prefix`` or ``redis_db``."""
    return servers.address("Redis")


@pytest.fixture
def prefix() -> str:
    """Topic prefix of this test alone, ``t-1a2b3c4d.``."""
    return f"t-{secrets.token_hex(4)}."


@pytest.fixture
def redis_prefix(prefix: str, redis_url: str) -> Iterator[str]:
    """Key prefix of this test alone (the same text as ``prefix``); its keys are deleted afterwards."""
    yield prefix
    with redis_client.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.unlink(key)


@pytest.fixture
def redis_db(redis_url: str) -> Iterator[str]:
    """URL of a database of this test alone, for tests that flush; only an empty one is taken, and it is emptied afterwards."""
    for number in range(1, 16):
        url = urlsplit(redis_url)._replace(path=f"/{number}").geturl()
        with redis_client.Redis.from_url(url) as client:
            if client.dbsize():
                continue
            yield url
            client.flushdb()
            return
    pytest.fail("no empty database among 1..15 of the Redis in use, and one that holds keys is never taken")
