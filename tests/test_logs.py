"""No number and no person stands in a log, however much a worker is asked to tell, and whatever breaks in it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ops.masking import MaskingFormatter, mask_numbers
from rules.e164 import masked_e164_in
from streams.topics import ensure_topics
from tests.harness import Client, encode, guard_settings
from tests.scene import REFERENCE, ask, consent, objection, request
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parent.parent
#: Nothing else in a log looks like these digits.
DIGITS = "31687654321"
NUMBER, PERSON = f"+{DIGITS}", "person-of-this-test"


def test_a_number_in_a_text_is_masked_and_nothing_else() -> None:
    """Addresses, offsets, instants and ids stay readable."""
    plain = "127.0.0.1:9092 at 2026-11-23T13:00:00+01:00, offset 123456789, KafkaError: +12 +0612345678"
    assert masked_e164_in(f"{plain}, {{0}}:s:{NUMBER}, {NUMBER!r}") == f"{plain}, {{0}}:s:+31*******21, '+31*******21'"


def test_every_value_of_a_line_is_masked_but_the_request_id() -> None:
    """However deep; an id is written in full, as the page says."""
    line = {
        "event": f"a {NUMBER}", "reasons": [NUMBER, 7], "found": {NUMBER: (NUMBER,)}, "count": 7, "request_id": NUMBER, "error": None,
    }  # fmt: skip
    assert mask_numbers(None, "info", line) == {
        "event": "a +31*******21", "reasons": ["+31*******21", 7], "found": {"+31*******21": ["+31*******21"]}, "count": 7,
        "request_id": NUMBER, "error": None,
    }  # fmt: skip


def test_a_library_s_line_is_masked_with_its_traceback() -> None:
    """An exception may quote what it broke on."""
    try:
        {}[NUMBER]
    except KeyError:
        record = logging.LogRecord("aiokafka", logging.ERROR, __file__, 1, "lost %s", (NUMBER,), sys.exc_info())
    told = MaskingFormatter("%(message)s").format(record)
    assert "lost +31*******21" in told
    assert "KeyError: '+31*******21'" in told
    assert DIGITS not in told


#: A worker whose rules break on one request, as ``ringfence worker`` runs it.
BREAKS = """
import sys
import agents.turn
from ops.cli import main

decide = agents.turn.decide

def breaking(request, *rest):
    if request.request_id == "q-breaks":
        raise KeyError(request.number)
    return decide(request, *rest)

agents.turn.decide = breaking
sys.argv = ["ringfence", "worker"]
main()
"""


@pytest.fixture(params=["json", "console"])
async def worker(request: pytest.FixtureRequest, kafka: str, redis_url: str, tmp_path: Path) -> AsyncIterator[tuple[Client, Any]]:
    """A client and a worker in a process of its own that tells all it can; its output comes when it has ended."""
    prefix = f"t-{secrets.token_hex(4)}."
    settings = guard_settings(kafka, redis_url, prefix, partitions=1)
    await ensure_topics(settings)
    environment = os.environ | {
        "RINGFENCE_KAFKA": kafka,
        "RINGFENCE_REDIS": redis_url,
        "RINGFENCE_TOPIC_PREFIX": prefix,
        "RINGFENCE_GROUP": prefix,
        "RINGFENCE_REDIS_PREFIX": prefix,
        "RINGFENCE_PARTITIONS": "1",
        "RINGFENCE_EMBEDDED": "1",
        "RINGFENCE_BARRIER_TIMEOUT_S": "15",
        "RINGFENCE_CLOCK_START": "2026-11-23T13:00:00Z",
        "RINGFENCE_LOG_LEVEL": "debug",
        "RINGFENCE_LOG_FORMAT": request.param,
        "PYTHONPATH": str(ROOT),
    }
    said = (tmp_path / "said").open("wb")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BREAKS, cwd=tmp_path, env=environment, stdout=said, stderr=said
    )
    client = Client(settings)
    await client.start()

    async def output() -> str:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 40) == 0
        return (tmp_path / "said").read_text()

    try:
        yield client, output
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        said.close()
        await client.stop()


@pytest.mark.broker
@pytest.mark.slow
async def test_a_worker_tells_no_number_and_no_person(worker: tuple[Client, Any]) -> None:
    """Approved, blocked, repeated, recalled, rejected, suspended, and one on which a rule breaks."""
    client, output = worker
    await client.put_all([*REFERENCE, consent(NUMBER, person_ref=PERSON)])
    dial_at = {"dial_at": "2026-11-23T13:05:00Z", "person_ref": PERSON}
    asked = request(NUMBER, **dial_at)
    await client.put("call-requests", asked)
    assert (await client.decision(asked["request_id"], 60))["decision"] == "approved"
    await client.put("call-requests", asked)
    await client.put("call-requests", asked | {"subject": "telecom"})
    broken = request(NUMBER, request_id="q-breaks", **dial_at)
    await client.put("call-requests", broken)
    assert (await client.decision("q-breaks"))["reasons"] == ["S_STATE_UNAVAILABLE"]
    await client.put_all([objection(NUMBER)])
    assert (await client.decisions_of(asked["request_id"], 3))[2]["kind"] == "recall"
    await client.put_raw("objections", NUMBER.encode(), encode({"number": NUMBER, "at": NUMBER, "person_ref": PERSON}))
    await client.put_raw("call-requests", NUMBER.encode(), encode({"number": NUMBER, NUMBER: PERSON}))
    await client.put_raw("parties", NUMBER.encode(), NUMBER.encode())
    assert "S_QUARANTINED" in (await ask(client, NUMBER, **dial_at))["reasons"]
    await wait_for(lambda: len(client.rejected) == 4, within_s=20)
    told = await output()
    assert "number suspended" in told
    assert "KeyError" in told
    assert "+31*******21" in told
    assert [one for one in (DIGITS, PERSON) if one in told] == []
    assert json.dumps(NUMBER) not in told
