"""Recalls (G3): an approval that is still valid is taken back by what it was decided without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from rules.decision import Decision
from rules.events import read_event
from rules.instants import SECOND, format_instant, parse_instant
from rules.recall import recall, stop_of, takes_back
from rules.reference import Reference
from streams.kept import Written
from streams.publisher import Publisher
from streams.topics import BLOCKED
from tests.harness import Running, SetClock, encode, running_worker
from tests.scene import (
    NOW,
    ask,
    campaign,
    consent,
    numbers,
    objection,
    outcome,
    party,
    relationship,
    release,
    request,
    running_scene,
    withdrawal,
)
from tests.servers import wait_for

# --- the rule -------------------------------------------------------------------------------------------------------------------

OF = "+31610000001"
APPROVAL = Decision(
    request_id="q", number=OF, campaign_id="c-1", advertiser_id="A", intermediary_id="I", call_centre_id="CC", dial_at=NOW,
    responsible_id="I", decision="approved", kind="decision", basis="OK_CONSENT", reasons=[], warnings=[], missing=[], rules=["C-01"],
    evidence=["e-1"], regime="R3", rulebook="nl@old", decided_at=NOW, valid_until="2026-11-23T13:01:00Z",
    as_of={"objections": 5, "consents": 5, "call-outcomes": 5, "relationships": 5},
)  # fmt: skip


def reaches(event: tuple[str, dict[str, Any]], offset: int = 5, subject: str | None = "energy", **changed: Any) -> bool:
    """Whether a fact at an offset takes the approval back."""
    topic, value = event
    fact, _ = read_event(topic, value["number"].encode(), encode(value))
    reference = Reference()
    for entry in (party("A", brand="b"), party("I"), party("B", brand="b"), party("C")):
        reference.put(entry[0], read_event(entry[0], entry[1]["party_id"].encode(), encode(entry[1]))[0])
    stop = stop_of(fact, topic, offset, 0)
    return stop is not None and takes_back(stop, msgspec.structs.replace(APPROVAL, **changed), subject, reference)


@pytest.mark.parametrize(
    ("event", "reached"),
    [
        (objection(OF), True),
        (objection(OF, advertiser_id="I"), True),
        (objection(OF, advertiser_id="B"), True),  # of the advertiser's brand
        (objection(OF, advertiser_id="C"), False),
        (objection(OF, advertiser_id="C", intermediary_id="I"), True),
        (objection(OF, advertiser_id=None), True),  # it names nobody: everyone
        (objection(OF, advertiser_id=None, call_centre_id="CC"), True),
        (objection(OF, advertiser_id=None, call_centre_id="other"), False),
        (objection(OF, advertiser_id="C", call_centre_id="CC"), False),
        (objection(OF, advertiser_id="C", call_centre_id="CC", scope="whole_call_centre"), True),
        (objection(OF, subject="energy"), True),
        (objection(OF, subject="energy/solar"), False),
        (objection(OF, subject="telecom"), False),
        (objection(OF, at="2020-01-01T00:00:00Z"), True),  # it counts whatever its instant
        (withdrawal(OF), True),
        (withdrawal(OF, party_ids=["A"]), True),
        (withdrawal(OF, party_ids=["B"]), True),
        (withdrawal(OF, party_ids=["C"]), False),
        (consent(OF), False),
        (outcome(OF, "objected"), True),
        (outcome(OF, "objected", advertiser_id="C"), False),
        (outcome(OF, "not_interested"), False),
        (relationship(OF, optout_used=True), True),
        (relationship(OF, optout_used=True, advertiser_id="C"), False),
        (relationship(OF), False),
        (release(OF), False),
    ],
)
def test_what_takes_an_approval_back(event: tuple[str, dict[str, Any]], *, reached: bool) -> None:
    """By name, brand, call centre and subject, as an objection stops a request."""
    assert reaches(event) is reached


def test_a_stop_that_the_approval_was_decided_with_takes_nothing_back() -> None:
    """It has been lifted, or it did not reach: `as_of` is the next offset, so the fact below it was known."""
    assert [reaches(objection(OF), offset) for offset in (4, 5)] == [False, True]


def test_a_partial_objection_takes_back_what_named_no_subject() -> None:
    """Or where the subject is not known any more."""
    assert reaches(objection(OF, subject="telecom"), subject=None)


def test_calls_that_may_reach_who_objected_are_not_taken_back() -> None:
    """Research and service messages; with a tint of promotion they are."""
    assert not reaches(objection(OF), basis="OK_NOT_TELEMARKETING")
    assert not reaches(objection(OF), basis="OK_SERVICE")
    assert reaches(objection(OF), basis="OK_SERVICE", warnings=["W_SERVICE_TINT"])


def test_a_recall_says_who_takes_back_what_and_why() -> None:
    """All fields of the approval but the verdict; every reason in the contract's order."""
    stops = []
    for topic, value in (withdrawal(OF, event_id="e-9"), objection(OF, event_id="e-8")):
        stops.append(stop_of(read_event(topic, OF.encode(), encode(value))[0], topic, 5, 0))
    now = parse_instant(NOW) + SECOND
    taken = recall(APPROVAL, stops, "nl@new", now, {"objections": 6})
    assert taken == msgspec.structs.replace(
        APPROVAL, decision="blocked", kind="recall", basis=None, reasons=["E_OBJECTION", "E_CONSENT_WITHDRAWN"],
        rules=["C-13", "O-01"], evidence=["e-8", "e-9"], rulebook="nl@new", decided_at=format_instant(now), valid_until=None,
        as_of={"objections": 6},
    )  # fmt: skip


# --- the guard ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    async with running_scene(kafka, redis_url) as running:
        await running.client.put_all([party("B", brand="b"), party("D", brand="b"), campaign("c-b", advertiser_id="B")])
        yield running


async def approved(guard: Running, of: str, **fields: Any) -> dict[str, Any]:
    """A request that is approved; the consent is given before."""
    await guard.client.put_all([consent(of)])
    asked = request(of, **fields)
    await guard.client.put("call-requests", asked)
    assert (await guard.client.decision(asked["request_id"]))["decision"] == "approved"
    return asked


async def recalled(guard: Running, asked: dict[str, Any]) -> dict[str, Any]:
    """The record that takes a request's approval back."""
    _, taken = await guard.client.decisions_of(asked["request_id"], 2)
    assert (taken["kind"], taken["decision"], taken["basis"], taken["valid_until"]) == ("recall", "blocked", None, None)
    return taken


@pytest.mark.broker
@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (objection, "E_OBJECTION"),
        (withdrawal, "E_CONSENT_WITHDRAWN"),
        (lambda of: outcome(of, "objected"), "E_OBJECTION"),
        (lambda of: relationship(of, optout_used=True), "E_OBJECTION"),
    ],
)
async def test_an_approval_that_is_still_valid_is_recalled(guard: Running, stop: Any, reason: str) -> None:
    """Guards Recalls in agents/facts.py: without `recalls.meet` nothing comes."""
    (of,) = numbers(1)
    asked = await approved(guard, of)
    topic, value = stop(of)
    await guard.client.put(topic, value)
    taken = await recalled(guard, asked)
    assert (taken["reasons"], taken["evidence"]) == ([reason], [value["event_id"]])
    assert taken["as_of"][topic] > 0
    record = next(one for one in guard.client.records if b'"recall"' in one.value and asked["request_id"].encode() in one.value)
    approval = next(one for one in guard.client.records if b'"approved"' in one.value and asked["request_id"].encode() in one.value)
    assert (record.topic, record.key, record.partition) == (guard.client.settings.topic(BLOCKED), approval.key, approval.partition)
    assert record.headers == approval.headers


@pytest.mark.broker
async def test_a_broken_objection_recalls_too(guard: Running) -> None:
    """It suspends the number, and nobody knows whom it was about."""
    (of,) = numbers(1)
    asked = await approved(guard, of)
    await guard.client.put_raw("objections", of.encode(), b"{broken")
    assert (await recalled(guard, asked))["reasons"] == ["S_QUARANTINED"]


@pytest.mark.broker
async def test_a_request_is_answered_with_its_recall_from_then_on(guard: Running) -> None:
    """Byte for byte, however often it comes; and no second recall is written by a second objection."""
    (of,) = numbers(1)
    asked = await approved(guard, of)
    await guard.client.put(*objection(of))
    await recalled(guard, asked)
    await guard.client.put(*objection(of))
    await guard.client.put("call-requests", asked)
    await guard.client.decisions_of(asked["request_id"], 3)
    await ask(guard.client, of)
    records = [one.value for one in guard.client.records if encode(asked["request_id"]) in one.value]
    assert len(records) == 3
    assert records[1] == records[2]


@pytest.mark.broker
async def test_every_approval_of_the_number_is_recalled_and_no_other(guard: Running) -> None:
    """Two requests of one advertiser; another number and a blocked request stay as they are."""
    of, other = numbers(2)
    first, second = await approved(guard, of), await approved(guard, of)
    kept = await approved(guard, other)
    await guard.client.put(*objection(of))
    for asked in (first, second):
        await recalled(guard, asked)
    await ask(guard.client, other)
    assert [one["kind"] for one in await guard.client.decisions_of(kept["request_id"], 1)] == ["decision"]


@pytest.mark.broker
async def test_an_approval_that_has_ended_is_not_recalled(guard: Running) -> None:
    """Valid for 60 s: at 61 s an objection meets nothing; the tests above are within the first minute."""
    (of,) = numbers(1)
    asked = await approved(guard, of)
    before = guard.clock.instant
    try:
        guard.clock.instant = before + 70 * SECOND
        await guard.client.put(*objection(of))
        await ask(guard.client, of)
    finally:
        guard.clock.instant = before
    assert len(await guard.client.decisions_of(asked["request_id"], 1)) == 1


@pytest.mark.broker
async def test_an_objection_sent_again_recalls_nothing_new(guard: Running) -> None:
    """Of one event_id the first counts: a consent has lifted it since, and the copy says nothing."""
    (of,) = numbers(1)
    sent_twice = objection(of, at="2026-11-19T10:00:00Z")
    await guard.client.put(*sent_twice)
    asked = await approved(guard, of)
    await guard.client.put(*sent_twice)
    await ask(guard.client, of)
    assert len(await guard.client.decisions_of(asked["request_id"], 1)) == 1


@pytest.mark.broker
async def test_an_approval_admitted_while_an_objection_is_merged_is_seen(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objection has read the entries, then a turn admits an approval: the script refuses, and the second look finds it.

    Guards the comparison of entries in `WRITE_FACTS` (streams/scripts.py).
    """
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    await ask(guard.client, of)
    store, asked = guard.worker.guard.store, request(of)
    write_facts, moved = store.write_facts, []

    async def late(batch: Any) -> Written:
        if of in batch.compared and not moved:
            await guard.client.put("call-requests", asked)
            # The barrier would hold the request back until the objection is applied; it was frozen before that was in the log.
            monkeypatch.setattr(guard.worker.guard.barrier, "is_reached", lambda *_: True)
            await wait_for(lambda: any(one["request_id"] == asked["request_id"] for one in guard.client.decisions), within_s=20)
            monkeypatch.undo()
            moved.append(await write_facts(batch))
            return moved[0]
        return await write_facts(batch)

    monkeypatch.setattr(store, "write_facts", late)
    await guard.client.put(*objection(of))
    await recalled(guard, asked)
    assert moved == [Written.MOVED]


@pytest.mark.broker
async def test_a_recall_that_was_not_published_is_published_by_the_next_owner(
    kafka: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker died between the write and the acknowledgement. Guards `_publish_recalls` in streams/recovery.py."""
    async with running_scene(kafka, redis_url) as guard:
        (of,) = numbers(1)
        asked = await approved(guard, of)
        publish, stuck = Publisher.publish, asyncio.Event()

        async def never(self: Publisher, outputs: Any) -> Any:
            outputs = list(outputs)
            if any(b'"recall"' in (output.value or b"") for output in outputs):
                stuck.set()
                await asyncio.Event().wait()
            return await publish(self, outputs)

        monkeypatch.setattr(Publisher, "publish", never)
        await guard.client.put(*objection(of))
        await asyncio.wait_for(stuck.wait(), 20)
        monkeypatch.undo()
        guard.worker.stop()
        async with running_worker(guard.client.settings, SetClock()):
            assert (await recalled(guard, asked))["reasons"] == ["E_OBJECTION"]
