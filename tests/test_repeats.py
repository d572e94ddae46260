"""What is sent twice: an event counts once, and a request is answered with the bytes of its first decision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis as redis_client

from rules.instants import SECOND, format_instant, parse_instant
from tests.harness import Running, encode
from tests.scene import NOW, ask, callee, consent, fresh, home, numbers, objection, outcome, request, running_scene, withdrawal
from tests.servers import wait_for

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """One guard for all tests of this file; each uses numbers and ids of its own."""
    async with running_scene(kafka, redis_url) as guard:
        yield guard


def later(seconds: int) -> str:
    return format_instant(parse_instant(NOW) + seconds * SECOND)


async def records_of(guard: Running, asked: dict[str, Any], count: int) -> list[Any]:
    """The first ``count`` Kafka records that answer a request of one number."""

    def found() -> list[Any]:
        key, id_field = asked["number"].encode(), encode(asked["request_id"])
        return [record for record in guard.client.records if record.key == key and id_field in record.value]

    await wait_for(lambda: len(found()) >= count, within_s=20)
    assert len(found()) == count
    return found()


def input_offset(record: Any) -> int:
    return int(dict(record.headers)["input-offset"])


async def conflicts(guard: Running, of: str) -> list[dict[str, Any]]:
    await wait_for(lambda: any(one["key"] == of for one in guard.client.rejected), within_s=20)
    return [one for one in guard.client.rejected if one["key"] == of]


# --- events ---------------------------------------------------------------------------------------------------------------------


async def test_an_event_sent_twice_counts_once(guard: Running) -> None:
    """Three outcomes that are one do not reach the cap of three unanswered calls in thirty days."""
    (of,) = numbers(1)
    unanswered = outcome(of, "no_answer")
    await guard.client.put_all([consent(of), unanswered, unanswered, unanswered])
    assert (await ask(guard.client, of))["reasons"] == []
    await guard.client.put_all([outcome(of, "no_answer"), outcome(of, "no_answer")])
    assert (await ask(guard.client, of))["reasons"] == ["P_ATTEMPT_CAP"]


async def test_of_one_event_id_the_first_content_counts(guard: Running) -> None:
    """In one batch and in different ones."""
    for together in (True, False):
        (of,) = numbers(1)
        first, second = consent(of, subjects=["gas"], event_id="same"), consent(of, event_id="same")
        if together:
            await guard.client.put_all([first, second])
        else:
            await guard.client.put_all([first])
            assert (await ask(guard.client, of))["reasons"] == ["E_CONSENT_SUBJECT"]
            await guard.client.put_all([second])
        assert (await ask(guard.client, of))["reasons"] == ["E_CONSENT_SUBJECT"]


async def test_an_objection_sent_again_with_other_content_stays_what_it_was(guard: Running) -> None:
    """Nobody narrows an objection to another party by sending its id again."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of), objection(of, event_id="same")])
    assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]
    await guard.client.put_all([objection(of, event_id="same", advertiser_id="somebody else")])
    assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]


async def test_event_ids_are_told_apart_by_topic_and_by_number(guard: Running) -> None:
    """The same id on another topic, or about another number, is another event."""
    of, other = numbers(2, partition=0)
    await guard.client.put_all([consent(of, event_id="same"), consent(other, event_id="same"), callee(of, event_id="same")])
    assert (await ask(guard.client, of))["evidence"] == ["same"]
    assert (await ask(guard.client, other))["reasons"] == []
    await guard.client.put_all([outcome(of, "objected", event_id="same")])
    assert "E_OBJECTION" in (await ask(guard.client, of))["reasons"]
    await guard.client.put_all([objection(other, event_id="same")])
    assert (await ask(guard.client, other))["reasons"] == ["E_OBJECTION"]


async def test_a_consent_and_its_withdrawal_under_one_event_id_are_one_event(guard: Running) -> None:
    """They come on one topic: whichever arrived first counts."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of, event_id="same"), withdrawal(of, event_id="same")])
    assert (await ask(guard.client, of))["reasons"] == []


# --- requests -------------------------------------------------------------------------------------------------------------------


async def test_a_request_sent_again_is_answered_with_the_same_bytes(guard: Running) -> None:
    """In a later batch, although it would be decided otherwise by now; the header names the place of the repeat."""
    (of,) = numbers(1)
    asked = request(of)
    await guard.client.put_all([consent(of)])
    first = await guard.client.put("call-requests", asked)
    await guard.client.decision(asked["request_id"])
    await guard.client.put_all([callee(of, at=NOW, age=12)])
    second = await guard.client.put("call-requests", asked)
    before, again = await records_of(guard, asked, 2)
    assert before.value == again.value
    assert b'"approved"' in before.value
    assert before.topic == again.topic
    assert (input_offset(before), input_offset(again)) == (first.offset, second.offset)
    assert (await ask(guard.client, of))["reasons"] == ["E_MINOR"]


async def test_a_request_that_stands_twice_in_one_batch_is_decided_once(guard: Running) -> None:
    """Also where the repeat spells the same content differently: key order, null for absent, another offset, fractions of nothing."""
    (of,) = numbers(1)
    asked = request(of)
    spelled = {name: asked[name] for name in reversed(asked)} | {"dial_at": "2026-11-23T14:00:00.000+01:00", "intermediary_id": None}
    await guard.client.put_all([consent(of), *(("call-requests", one) for one in (asked, spelled, asked | {"unknown": 1}))])
    records = await records_of(guard, asked, 3)
    assert len({record.value for record in records}) == 1
    assert len({input_offset(record) for record in records}) == 3
    assert b'"dial_at":"2026-11-23T13:00:00Z"' in records[0].value


CHANGED = {
    "dial_at": later(1),
    "subject": "energy/solar",
    "advertiser_id": "B",
    "intermediary_id": "I",
    "call_centre_id": "C",
    "campaign_id": "c-2",
    "purpose": "ideal",
    "promotion": "none",
    "own_offer": None,
    "dialling_mode": "predictive",
    "cli": {"number": None, "withheld": True},
    "person_ref": "p-2",
    "scrubbed_on": "2020-01-01",
    "service_necessary": True,
}


@pytest.mark.parametrize("field", CHANGED)
async def test_a_request_id_with_other_content_is_a_conflict(guard: Running, field: str) -> None:
    """It is reported and not decided, in the same batch and in a later one; the first decision stands."""
    (of,) = numbers(1)
    asked = request(of)
    other = asked | {field: CHANGED[field]}
    await guard.client.put_all([consent(of), ("call-requests", asked), ("call-requests", other)])
    assert (await guard.client.decision(asked["request_id"]))["decision"] == "approved"
    sent = await guard.client.put("call-requests", other)
    await wait_for(lambda: sum(one["key"] == of for one in guard.client.rejected) == 2, within_s=20)
    reports = await conflicts(guard, of)
    assert [one["error"]["code"] for one in reports] == ["conflict"] * 2
    assert [one["error"]["field"] for one in reports] == ["request_id"] * 2
    assert (reports[1]["topic"], reports[1]["partition"], reports[1]["offset"]) == ("call-requests", sent.partition, sent.offset)
    await guard.client.put("call-requests", asked)
    assert len({record.value for record in await records_of(guard, asked, 2)}) == 1


async def test_the_same_request_id_for_another_number_is_another_request(guard: Running) -> None:
    """A request is known by number and request_id together."""
    of, other = numbers(2, partition=1)
    asked = request(of)
    await guard.client.put_all([consent(of), ("call-requests", asked), ("call-requests", asked | {"number": other})])
    decisions = {one["number"]: one["decision"] for one in await guard.client.decisions_of(asked["request_id"], 2)}
    assert decisions == {of: "approved", other: "blocked"}


async def test_after_the_request_memory_a_request_id_is_a_new_request(kafka: str, redis_url: str) -> None:
    """One microsecond before, it is a repeat; from then on it is decided anew, with whatever content."""
    async with running_scene(kafka, redis_url, request_memory_s=60) as guard:
        (of,) = numbers(1)
        asked = request(of, subject="gas")
        await guard.client.put_all([consent(of), ("call-requests", asked)])
        first = await guard.client.decision(asked["request_id"])
        assert first["decision"] == "blocked"
        guard.clock.instant = parse_instant(NOW) + 60 * SECOND - 1
        await guard.client.put("call-requests", asked)
        assert len({record.value for record in await records_of(guard, asked, 2)}) == 1
        guard.clock.instant = parse_instant(NOW) + 60 * SECOND
        await guard.client.put("call-requests", asked | {"subject": "energy"})
        assert (await guard.client.decisions_of(asked["request_id"], 3))[2]["decision"] == "approved"


async def test_an_approval_is_remembered_as_long_as_it_may_be_dialled_on(kafka: str, redis_url: str) -> None:
    """A call asked for ten minutes ahead stays valid beyond the memory of sixty seconds; a repeat gets its bytes until then."""
    async with running_scene(kafka, redis_url, request_memory_s=60) as guard:
        (of,) = numbers(1)
        asked = request(of, dial_at=later(600))
        await guard.client.put_all([consent(of), ("call-requests", asked)])
        first = await guard.client.decision(asked["request_id"])
        assert first["valid_until"] == later(660)
        with redis_client.Redis.from_url(redis_url) as client:
            (entry,) = client.scan_iter(match=f"*{guard.worker.guard.settings.redis_prefix}*{{{home(of, 4)}}}:e:{of}", count=1000)
            assert client.ttl(entry) > 600
            guard.clock.set(later(400))
            await guard.client.put("call-requests", request(of))  # a later, shorter memory must not cut the earlier one off
            await ask(guard.client, of)
            assert client.ttl(entry) > 200
        await guard.client.put_all([callee(of, at=NOW, age=12)])
        guard.clock.set(later(659))
        await guard.client.put("call-requests", asked)
        assert len({record.value for record in await records_of(guard, asked, 2)}) == 1
        guard.clock.set(later(660))
        await guard.client.put("call-requests", asked)
        assert (await guard.client.decisions_of(asked["request_id"], 3))[2]["decision"] == "blocked"


async def test_a_number_whose_memory_cannot_be_read_is_not_approved(guard: Running, redis_url: str) -> None:
    """It may have been decided before, and a second decision must not approve."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    partition, settings = home(of, 4), guard.worker.guard.settings
    with redis_client.Redis.from_url(redis_url) as client:
        client.set(f"{settings.redis_prefix}:{{{partition}}}:e:{of}", b"\xc1")
    assert (await ask(guard.client, of))["reasons"] == ["S_STATE_UNAVAILABLE"]


async def test_a_decision_that_no_record_can_hold_is_a_refusal(guard: Running) -> None:
    """Objections without end, each with an id of four thousand characters: the answer is no, and the partition goes on."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of), *(objection(of, event_id=f"{n:04d}" + "x" * 4000) for n in range(150))])
    asked = request(of, request_id=fresh("large"))
    await guard.client.put("call-requests", asked)
    assert (await guard.client.decision(asked["request_id"]))["reasons"] == ["S_STATE_UNAVAILABLE"]
