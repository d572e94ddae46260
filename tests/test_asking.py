"""A question's answer, in whatever order Kafka's acknowledgement and the records of its request come."""

from __future__ import annotations

import asyncio
from itertools import permutations
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError
from aiokafka.structs import RecordMetadata

from config.settings import Settings
from ops.gateway.asking import Asking
from ops.gateway.problems import Problem
from ops.gateway.publishing import Publishing
from ops.rejected import Fault, Report
from ops.statistics import Seen
from rules.events import REQUEST_TOPIC
from tests.scene import request

NUMBER = "+31612345678"
RAW = msgspec.json.encode(request(NUMBER, request_id="q-1"))
PARTITION, OFFSET = 3, 7


class Held(Publishing):
    """Takes a record and leaves the acknowledgement to the test; everything else is the gateway's own."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.acknowledgement: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def send(self, *_: Any) -> asyncio.Future[Any]:
        return self.acknowledgement

    def acknowledge(self) -> None:
        self.acknowledgement.set_result(RecordMetadata("t", PARTITION, None, OFFSET, 0, 1, 0))


def output(decision: str, offset: int) -> tuple[ConsumerRecord[bytes, bytes], Seen]:
    """A decision on the request at an offset; its value says which."""
    seen = Seen("q-1", NUMBER, "c", "A", None, None, decision, "decision", None, [], "2026-11-23T12:00:00Z")
    headers = [("input-offset", str(offset).encode())]
    value = f"{decision}@{offset}".encode()
    return ConsumerRecord("t", PARTITION, 0, 0, 1, b"k", value, None, 1, len(value), headers), seen


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def asked(**settings: Any) -> tuple[Asking, Held, asyncio.Task[bytes]]:
    publishing = Held()
    asking = Asking(Settings(**settings), publishing)
    answer = asyncio.create_task(asking.ask(RAW))
    await settled()
    return asking, publishing, answer


STEPS = {
    "acknowledged": None,
    "approved": ("approved", OFFSET),
    "earlier": ("approved", OFFSET - 4),
    "blocked": ("blocked", OFFSET + 2),
}


@pytest.mark.parametrize("order", [order for count in (2, 3, 4) for order in permutations(STEPS, count)], ids="-".join)
@pytest.mark.parametrize("at_once", [False, True], ids=["one-by-one", "at-once"])
async def test_an_approval_answers_its_own_offset_only_and_a_block_always_wins(order, at_once):
    asking, publishing, answer = await asked()
    done: set[str] = set()
    expected = None
    for step in order:
        if step == "acknowledged":
            publishing.acknowledge()
        else:
            asking.on_output(*output(*STEPS[step]))
        done.add(step)
        if not at_once:
            await settled()
        if expected is None or at_once:
            expected = b"blocked@9" if "blocked" in done else b"approved@7" if done >= {"acknowledged", "approved"} else None
    await settled()
    if expected is None:
        assert not answer.done()
        answer.cancel()
        await settled()
    else:
        assert answer.result() == expected
    assert asking.waiting == 0
    assert not asking._waiting
    assert not asking._at


async def test_a_block_that_is_read_before_the_approval_has_gone_out_goes_out_in_its_place():
    asking, publishing, answer = await asked()
    publishing.acknowledge()
    await settled()
    asking.on_output(*output("approved", OFFSET))
    asking.on_output(*output("blocked", OFFSET + 2))
    await settled()
    assert answer.result() == b"blocked@9"


@pytest.mark.parametrize("error", [RequestTimedOutError(), KafkaConnectionError("gone"), None], ids=["late", "gone", "cancelled"])
async def test_what_kafka_has_not_acknowledged_is_no_decision(error):
    asking, publishing, answer = await asked()
    if error is None:
        publishing.acknowledgement.cancel()
    else:
        publishing.acknowledgement.set_exception(error)
    await settled()
    with pytest.raises(Problem) as refused:
        answer.result()
    assert (refused.value.status, refused.value.members["code"]) == (503, "S_STATE_UNAVAILABLE")
    assert (asking.waiting, asking._at) == (0, {})


async def test_an_acknowledgement_that_comes_after_the_answer_leaves_nothing_behind():
    asking, publishing, answer = await asked()
    asking.on_output(*output("blocked", 1))
    await settled()
    assert answer.result() == b"blocked@1"
    publishing.acknowledge()
    await settled()
    assert (asking.waiting, dict(asking._waiting), asking._at) == (0, {}, {})


async def test_without_a_decision_in_time_nobody_is_told_to_dial():
    asking, publishing, answer = await asked(gateway_wait_s=0.05)
    publishing.acknowledge()
    asking.on_output(*output("approved", OFFSET - 4))
    with pytest.raises(Problem) as refused:
        await asyncio.wait_for(answer, 5)
    assert refused.value.status == 503
    assert (asking.waiting, asking._at) == (0, {})


async def test_a_report_on_the_request_itself_refuses_it():
    asking, publishing, answer = await asked()
    publishing.acknowledge()
    await settled()
    record, _ = output("blocked", 0)
    for offset in (OFFSET + 1, OFFSET):
        fault = Fault("conflict", "request_id", "other content")
        asking.on_output(record, Report(REQUEST_TOPIC, PARTITION, offset, None, "2026-11-23T12:00:00Z", fault))
        await settled()
        assert answer.done() is (offset == OFFSET)
    with pytest.raises(Problem) as refused:
        answer.result()
    assert (refused.value.status, refused.value.members["request_id"]) == (409, "q-1")
