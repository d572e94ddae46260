"""The dial gate on a real broker beside a real worker: asked, approved, blocked, recalled, and whatever may be away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from config.clock import Clock
from config.settings import Settings
from ops.client import DialGate, Reason
from rules.errors import CannotStart, InputError
from rules.instants import SECOND, format_instant, parse_instant
from streams.embedded import EmbeddedKafka
from streams.topics import APPROVED, BLOCKED, ensure_topics
from tests.harness import Client, Running, encode, guard_settings
from tests.scene import NOW, consent, numbers, objection, request, running_scene
from tests.servers import wait_for

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """A guard whose clock runs, from 14:00 in Amsterdam on."""
    offset_s = parse_instant(NOW) / SECOND - time.time()
    async with running_scene(kafka, redis_url, clock_offset_s=offset_s) as running:
        running.worker.guard.clock = Clock.from_settings(running.client.settings)
        yield running


@pytest.fixture(scope="module")
async def gate(guard: Running) -> AsyncIterator[DialGate]:
    async with DialGate(guard.client.settings) as gate:
        assert await gate.ready()
        yield gate


def question(guard: Running, of: str, **fields: Any) -> dict[str, Any]:
    """A call that is to be dialled at once."""
    return request(of, dial_at=format_instant(guard.worker.guard.clock.now()), **fields)


async def approved(guard: Running, gate: DialGate, of: str) -> str:
    """The request_id of a call that may be dialled."""
    await guard.client.put_all([consent(of)])
    asked = question(guard, of)
    assert await gate.ask(asked)
    return asked["request_id"]


async def test_an_approved_call_may_be_dialled(guard: Running, gate: DialGate) -> None:
    """The answer to a question is its decision and a yes, and may_dial says the same."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = question(guard, of)
    answer = await gate.ask(asked)
    assert answer.decision == await guard.client.decision(asked["request_id"])
    assert answer.permission == gate.may_dial(asked["request_id"])
    assert answer.permission.reason is Reason.APPROVED
    until = answer.permission.until
    assert until is not None
    assert format_instant(round(until.timestamp() * SECOND)) == answer.decision["valid_until"]
    assert gate.may_dial(asked["request_id"], now=until).reason is Reason.EXPIRED


async def test_a_blocked_call_may_not(guard: Running, gate: DialGate) -> None:
    """With the codes of its decision."""
    (of,) = numbers(1)
    answer = await gate.ask(question(guard, of))
    assert (bool(answer), answer.permission.reason, answer.permission.codes) == (False, Reason.BLOCKED, ("E_NO_BASIS",))


async def test_an_objection_takes_the_yes_back(guard: Running, gate: DialGate) -> None:
    """And it stays back, though the approval is in the log and its repeat may come."""
    (of,) = numbers(1)
    request_id = await approved(guard, gate, of)
    await guard.client.put(*objection(of))
    await wait_for(lambda: gate.may_dial(request_id).reason is Reason.RECALLED)


async def test_who_confirms_sees_a_recall_that_is_in_the_log(guard: Running, gate: DialGate) -> None:
    """Also with a bound of a minute and a reader that stands still: no answer rests on less than what was there at the question."""
    (of,) = numbers(1)
    request_id = await approved(guard, gate, of)
    async with DialGate(guard.client.settings, behind_s=60) as easy:
        assert await easy.confirm(request_id, within_s=10)
        consumer = easy._reader._consumer
        assert consumer is not None
        consumer.pause(*consumer.assignment())
        await guard.client.put(*objection(of))
        await guard.client.decisions_of(request_id, 2)
        assert easy.may_dial(request_id)
        assert (await easy.confirm(request_id, within_s=0.3)).reason is Reason.BEHIND
        consumer.resume(*consumer.assignment())
        assert (await easy.confirm(request_id, within_s=10)).reason is Reason.RECALLED


async def test_a_request_asked_twice_gets_its_first_answer(guard: Running, gate: DialGate) -> None:
    """Also at the same time: each finds the record that names its own offset."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = question(guard, of)
    answers = await asyncio.gather(*(gate.ask(asked) for _ in range(3)))
    assert all(answers)
    assert answers[0].decision == answers[1].decision == answers[2].decision
    assert len(await guard.client.decisions_of(asked["request_id"], 3)) == 3


async def test_a_request_id_with_other_content_gets_no_answer(guard: Running, gate: DialGate) -> None:
    """The guard rejects it. That a repeat of the first is answered meanwhile is no answer to this one."""
    (of,) = numbers(1)
    asked = question(guard, of)
    first = await gate.ask(asked)
    other, repeat = await asyncio.gather(gate.ask(asked | {"subject": "telecom"}, within_s=2), gate.ask(asked))
    assert (other.decision, other.permission.reason, other.permission.text) == (None, Reason.UNKNOWN, "no answer within 2 s")
    assert repeat.decision == first.decision
    assert gate.may_dial(asked["request_id"]) == first.permission


async def test_what_is_no_request_is_not_published(guard: Running, gate: DialGate) -> None:
    (of,) = numbers(1)
    asked = question(guard, of)
    del asked["campaign_id"]
    with pytest.raises(InputError, match="campaign_id"):
        await gate.ask(asked)


async def test_a_gate_that_starts_knows_what_was_decided_before(guard: Running, gate: DialGate) -> None:
    """A dialler that was restarted goes on with its approvals; until the gate has caught up, nothing may be dialled."""
    (of,) = numbers(1)
    request_id = await approved(guard, gate, of)
    async with DialGate(guard.client.settings) as later:
        assert await later.ready()
        assert later.may_dial(request_id)
        assert len(later) >= 1


async def test_a_gate_keeps_its_own_requests_alone(guard: Running, gate: DialGate) -> None:
    (of,) = numbers(1)
    async with DialGate(guard.client.settings, mine="mine-") as mine:
        assert (await mine.ask(question(guard, of, request_id="mine-1"))).permission.reason is Reason.BLOCKED
        assert await mine.ready()
        assert len(mine) == 1
        with pytest.raises(ValueError, match="mine-"):
            await mine.ask(question(guard, of))


async def test_a_clock_that_is_behind_the_guards_permits_nothing(guard: Running, gate: DialGate) -> None:
    """By an hour: the approval would seem valid for an hour more."""
    (of,) = numbers(1)
    request_id = await approved(guard, gate, of)
    settings = guard.client.settings
    slow = settings.model_copy(update={"clock_offset_s": settings.clock_offset_s - 3600})
    async with DialGate(slow) as behind:
        assert await behind.ready()
        assert behind.may_dial(request_id).reason is Reason.CLOCK


async def test_without_an_answer_the_call_may_not_be_dialled(kafka: str, redis_url: str, prefix: str) -> None:
    """There are topics and no worker. And where there are no topics, or no broker, the gate does not start."""
    settings = guard_settings(kafka, redis_url, prefix)
    await ensure_topics(settings)
    (of,) = numbers(1)
    async with DialGate(kafka=kafka, topic_prefix=prefix) as gate:
        answer = await gate.ask(request(of), within_s=0.5)
        assert (bool(answer), answer.decision, answer.permission.text) == (False, None, "no answer within 0.5 s")
    for wrong, told in (
        ({"topic_prefix": "none."}, "lacks topics none"),
        ({"kafka": "127.0.0.1:1"}, "no Kafka answers at 127.0.0.1:1"),
    ):
        with pytest.raises(CannotStart, match=told):
            await DialGate(**{"kafka": kafka, **wrong}).__aenter__()


@pytest.mark.slow
async def test_without_a_broker_nothing_may_be_dialled(tmp_path: Path) -> None:
    """Within the bound of the broker's end; and when it is there again the gate goes on, with the recall that came meanwhile."""
    with EmbeddedKafka(tmp_path) as broker:
        settings = Settings(kafka=broker.address, topic_prefix="t.", embedded=True, replication=1, partitions=2)
        await ensure_topics(settings)
        async with writing(settings) as client, DialGate(settings) as gate:
            for request_id in ("q-1", "q-2"):
                await client.put_raw(APPROVED, b"+31612345678", _record(request_id, "approved"), partition=1)
            assert await gate.ready()
            assert gate.may_dial("q-1")
            broker.stop(0)
            await wait_for(lambda: gate.may_dial("q-1").reason is Reason.BEHIND, within_s=5)
            assert (await gate.confirm("q-1", within_s=0.2)).reason is Reason.BEHIND
            asked = await gate.ask(request("+31612345678"), within_s=0.2)
            assert not asked
            broker.start()
            await client.put_raw(BLOCKED, b"+31612345678", _record("q-1", "blocked", kind="recall"), partition=1)
            await wait_for(lambda: gate.may_dial("q-1").reason is Reason.RECALLED, within_s=30)
            assert gate.may_dial("q-2")


def test_an_argument_that_is_none_is_refused() -> None:
    """A misspelt one would leave the default in force, security among them."""
    with pytest.raises(TypeError, match="no argument kafka_securty"):
        DialGate(kafka_securty="SSL")
    with pytest.raises(TypeError, match="not both"):
        DialGate(Settings(), kafka="127.0.0.1:9092")
    with pytest.raises(ValueError, match="bound"):
        DialGate(behind_s=0)


@asynccontextmanager
async def writing(settings: Settings) -> AsyncIterator[Client]:
    """A client alone, with no guard."""
    client = Client(settings)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


def _record(request_id: str, decision: str, kind: str = "decision") -> bytes:
    """A decision of now, valid for two minutes."""
    now = time.time_ns() // 1000
    approved = decision == "approved"
    return encode({
        "request_id": request_id, "number": "+31612345678", "decision": decision, "kind": kind, "dial_at": format_instant(now),
        "decided_at": format_instant(now), "valid_until": format_instant(now + 120 * SECOND) if approved else None, "reasons": [],
    })  # fmt: skip
