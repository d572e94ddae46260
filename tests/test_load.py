"""The load test, in short: every request gets its decision or is counted as missing, over Kafka and over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis as redis_client
from aiohttp import web

from streams.topics import connected_admin, ensure_topics
from tests.harness import guard_settings
from tests.load.__main__ import main

ROOT = Path(__file__).parent.parent


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The command as a team would start it."""
    command = [sys.executable, "-m", "tests.load", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=ROOT, check=False)


@pytest.mark.broker
@pytest.mark.slow
async def test_workers_of_its_own_answer_everything_and_nothing_is_left(kafka, redis_url):
    """Two rates, the figures of each; topics and keys are gone."""
    done = await asyncio.to_thread(
        run, "--rate", "50", "100", "--seconds", "2", "--numbers", "300", "--kafka", kafka, "--redis", redis_url, "--json"
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["rates"]
    assert [(one["sent"], one["missing"]) for one in (first, second)] == [(100, 0), (200, 0)]
    for one in (first, second):
        assert 0 < one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"] <= one["max_ms"]
    admin = await connected_admin(guard_settings(kafka, redis_url, "load-"))
    try:
        assert [name for name in await admin.list_topics() if name.startswith("load-")] == []
    finally:
        await admin.close()
    with redis_client.Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(match="load-*", count=1000)) == []


@pytest.mark.broker
async def test_what_nobody_decides_is_missing(kafka, redis_url, prefix, capsys):
    """Topics without a worker: exit code 1 and how many."""
    await ensure_topics(guard_settings(kafka, redis_url, prefix))
    words = ["--workers", "0", "--kafka", kafka, "--topic-prefix", prefix, "--partitions", "4", "--rate", "20", "--seconds", "1"]
    assert await asyncio.to_thread(main, [*words, "--grace", "0.5", "--numbers", "50"]) == 1
    shown = capsys.readouterr()
    assert "20 of 20 requests got no decision" in shown.err
    assert shown.out.splitlines()[1].split() == ["20", "20", "20", "-", "-", "-", "-"]


@pytest.fixture
async def stub() -> AsyncIterator[str]:
    """A gateway that decides every fourth request too late, and refuses whom it does not know."""
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if request.headers["Authorization"] != "Bearer right":
            return web.json_response({"status": 401}, status=401, content_type="application/problem+json")
        if asked % 4 == 0:
            return web.json_response({"status": 503}, status=503, content_type="application/problem+json")
        record = await request.json()
        return web.json_response({"request_id": record["request_id"], "decision": "blocked"})

    app = web.Application()
    app.router.add_post("/v1/call-requests", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_over_http_whatever_is_no_decision_is_missing(stub, capsys, tmp_path):
    """Counted by its status; the key may come from a file."""
    (tmp_path / "key").write_text("right\n")
    words = ["--http", stub, "--key", f"@{tmp_path / 'key'}", "--rate", "40", "--seconds", "1", "--numbers", "50", "--json"]
    assert await asyncio.to_thread(main, words) == 1
    (row,) = json.loads(capsys.readouterr().out)["rates"]
    assert (row["sent"], row["missing"], row["failed"]) == (40, 10, {"status 503": 10})
    assert await asyncio.to_thread(main, [*words[:2], "--key", "wrong", *words[4:]]) == 1
    (row,) = json.loads(capsys.readouterr().out)["rates"]
    assert (row["missing"], row["failed"]) == (40, {"status 401": 40})


def test_no_gateway_is_no_decision(capsys):
    """Whoever loads an address where nobody listens is told so."""
    assert main(["--http", "http://127.0.0.1:1", "--key", "k", "--rate", "10", "--seconds", "0.3", "--numbers", "50"]) == 1
    assert "3 without a decision: ClientConnectorError" in capsys.readouterr().out


@pytest.mark.broker
def test_ctrl_c_stops_what_was_started(kafka, redis_url):
    """Exit code 130, and the rates that were done."""
    command = [sys.executable, "-m", "tests.load", "--rate", "20", "20", "--seconds", "1000", "--numbers", "50"]
    with subprocess.Popen(
        [*command, "--kafka", kafka, "--redis", redis_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as load:
        try:
            assert load.stderr is not None
            for line in load.stderr:
                if "requests a second" in line:
                    break
            load.send_signal(signal.SIGINT)
            out, err = load.communicate(timeout=60)
        finally:
            load.kill()
    assert load.returncode == 130, err
    assert out.split()[:2] == ["rate/s", "sent"]


@pytest.mark.parametrize(
    "words",
    [["--rate", "0"], ["--workers", "9"], ["--http", "http://h"], ["--redis", "redis://h"], ["--kafka", "h:1"],
     ["--http", "http://h", "--key", "k", "--kafka", "h:1"], ["--numbers", "0"]],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage" in capsys.readouterr().err


def test_without_a_broker_it_cannot_start(capsys):
    assert main(["--workers", "0", "--kafka", "127.0.0.1:1", "--rate", "1", "--seconds", "1", "--numbers", "50"]) == 3
    assert "127.0.0.1:1" in capsys.readouterr().err
