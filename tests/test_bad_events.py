"""Records that are no valid events are reported with their bytes and harm nobody else; a broken objection suspends its number."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rules.events import MAX_RECORD_BYTES
from tests.harness import Running, encode
from tests.scene import (
    ask,
    callee,
    campaign,
    consent,
    fresh,
    home,
    invitation,
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

pytestmark = pytest.mark.broker

PARTITIONS = 4


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """One guard for all tests of this file; each uses numbers and ids of its own."""
    async with running_scene(kafka, redis_url, partitions=PARTITIONS) as guard:
        yield guard


async def rejected(guard: Running, sent: Any, topic: str) -> dict[str, Any]:
    """The one report about a record that was sent."""

    def reports() -> list[dict[str, Any]]:
        return [
            one
            for one in guard.client.rejected
            if (one["topic"], one["partition"], one["offset"]) == (topic, sent.partition, sent.offset)
        ]

    await wait_for(reports, within_s=20)
    (report,) = reports()
    return report


async def reasons(guard: Running, of: str, **fields: Any) -> list[str]:
    return (await ask(guard.client, of, **fields))["reasons"]


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def replaced(old: str, new: bytes) -> Callable[[bytes], bytes]:
    """A change of a record's bytes that is certain to find its place."""

    def change(raw: bytes) -> bytes:
        assert old.encode() in raw
        return raw.replace(old.encode(), new)

    return change


def with_field(name: str, value: Any) -> Callable[[bytes], bytes]:
    return lambda raw: encode({**json.loads(raw), name: value})


def without_field(name: str) -> Callable[[bytes], bytes]:
    return lambda raw: encode(without(json.loads(raw), name))


# What is done to a good request, the code and the field that come of it.
BROKEN_REQUESTS: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "cut off": (lambda raw: raw[:-5], "json", ""),
    "empty": (lambda raw: b"", "json", ""),
    "a key twice": (replaced('"purpose":', b'"subject":"gas","purpose":'), "json", ""),
    "NaN": (replaced('"own_offer":true', b'"own_offer":NaN'), "json", ""),
    "Infinity": (replaced('"own_offer":true', b'"own_offer":-Infinity'), "json", ""),
    "five thousand brackets": (replaced('"own_offer":true', b'"own_offer":' + b"[" * 5000 + b"]" * 5000), "json", ""),
    "no UTF-8": (replaced('"energy"', b'"\xff\xfe"'), "json", ""),
    "half a surrogate": (replaced('"energy"', b'"\\ud800"'), "json", ""),
    "two objects": (lambda raw: raw + raw, "json", ""),
    "a list": (lambda raw: b"[" + raw + b"]", "type", ""),
    "a text": (lambda raw: b'"call me"', "type", ""),
    "null": (lambda raw: b"null", "type", ""),
    "a truth value as text": (with_field("own_offer", "true"), "type", "own_offer"),
    "a truth value as 1": (with_field("own_offer", 1), "type", "own_offer"),
    "a number without quotes": (with_field("number", 31612345678), "type", "number"),
    "an instant without quotes": (with_field("dial_at", 1795525200), "type", "dial_at"),
    "a list for an object": (with_field("cli", []), "type", "cli"),
    "a list for a text": (with_field("subject", ["energy"]), "type", "subject"),
    "no request_id": (without_field("request_id"), "missing", "request_id"),
    "no dial_at": (without_field("dial_at"), "missing", "dial_at"),
    "a null advertiser": (with_field("advertiser_id", None), "missing", "advertiser_id"),
    "cli without withheld": (with_field("cli", {"number": "+31201234567"}), "missing", "cli.withheld"),
    "no offset": (with_field("dial_at", "2026-11-23T13:00:00"), "format", "dial_at"),
    "an impossible date": (with_field("dial_at", "2026-02-30T13:00:00Z"), "format", "dial_at"),
    "a leap second": (with_field("dial_at", "2016-12-31T23:59:60Z"), "format", "dial_at"),
    "a date with a time": (with_field("scrubbed_on", "2020-01-01T00:00:00Z"), "format", "scrubbed_on"),
    "an empty request_id": (with_field("request_id", ""), "format", "request_id"),
    "a long request_id": (with_field("request_id", "q" * 129), "format", "request_id"),
    "a national caller number": (with_field("cli", {"number": "0201234567", "withheld": False}), "format", "cli.number"),
    "an unknown purpose": (with_field("purpose", "fun"), "enum", "purpose"),
    "another spelling": (with_field("dialling_mode", "Manual"), "enum", "dialling_mode"),
    "a text without end": (with_field("subject", "x" * 5000), "too_large", "subject"),
    "more than 512 KiB": (with_field("note", "x" * MAX_RECORD_BYTES), "too_large", ""),
}


@pytest.mark.parametrize("name", BROKEN_REQUESTS)
async def test_a_broken_request_is_reported_with_its_bytes_and_never_decided(guard: Running, name: str) -> None:
    """Code and field are the contract's; bytes, key and place are the original's; the requests around it in the batch are decided."""
    change, code, field = BROKEN_REQUESTS[name]
    (of,) = numbers(1)
    good = [request(of), request(of)]
    broken = request(of)
    raw = change(encode(broken))
    await guard.client.put_all([consent(of), ("call-requests", good[0])])
    sent = await guard.client.put_raw("call-requests", of.encode(), raw)
    await guard.client.put("call-requests", good[1])
    report = await rejected(guard, sent, "call-requests")
    assert (report["error"]["code"], report["error"]["field"]) == (code, field)
    assert report["error"]["message"]
    assert of not in report["error"]["message"]
    assert report["key"] == of
    assert report["rejected_at"] == "2026-11-23T13:00:00Z"
    assert base64.b64decode(report["value"]) == raw[:MAX_RECORD_BYTES]
    assert report.get("truncated", False) is (len(raw) > MAX_RECORD_BYTES)
    for one in good:
        assert (await guard.client.decision(one["request_id"]))["decision"] == "approved"
    assert not [one for one in guard.client.decisions if one["request_id"] == broken["request_id"]]


@pytest.mark.parametrize("field", ["subject", "promotion", "service_necessary"])
async def test_what_only_an_answer_lacks_is_decided_and_not_rejected(guard: Running, field: str) -> None:
    """An absent subject, promotion, service_necessary or shown caller number is E_FACTS_INCOMPLETE."""
    (of,) = numbers(1)
    asked = without(
        request(of, purpose="commercial" if field == "subject" else "service", promotion="none", service_necessary=True), field
    )
    await guard.client.put("call-requests", asked)
    decision = await guard.client.decision(asked["request_id"])
    assert decision["reasons"] == ["E_FACTS_INCOMPLETE"]
    assert field in decision["missing"]


async def test_a_request_whose_key_and_number_disagree_is_reported(guard: Running) -> None:
    """Also where it has no key at all: the number's partition cannot be known to be right then."""
    of, other = numbers(2, partition=0)
    good = request(of)
    for key in (other.encode(), None, b"\xff\xfe", b""):
        sent = await guard.client.put_raw("call-requests", key, encode(request(of)), partition=0)
        report = await rejected(guard, sent, "call-requests")
        assert (report["error"]["code"], report["error"]["field"]) == ("key_mismatch", "number")
        assert report["key"] == (None if key is None else key.decode("utf-8", "replace"))
    await guard.client.put("call-requests", good)
    assert await guard.client.decision(good["request_id"])


PER_NUMBER = {
    "call-requests": request,
    "consents": lambda of: consent(of)[1],
    "objections": lambda of: objection(of)[1],
    "relationships": lambda of: relationship(of)[1],
    "invitations": lambda of: invitation(of)[1],
    "callees": lambda of: callee(of)[1],
    "call-outcomes": lambda of: outcome(of, "connected")[1],
    "quarantine-releases": lambda of: release(of)[1],
}


@pytest.mark.parametrize("topic", PER_NUMBER)
async def test_a_null_on_a_topic_keyed_by_number_is_reported(guard: Running, topic: str) -> None:
    """A null removes entries on the reference topics only; the report holds a null where the bytes would be."""
    (of,) = numbers(1)
    sent = await guard.client.put_raw(topic, of.encode(), None)
    report = await rejected(guard, sent, topic)
    assert report["error"]["code"] == "null_value"
    assert report["value"] is None
    assert report["key"] == of


@pytest.mark.parametrize("topic", PER_NUMBER)
async def test_on_every_topic_broken_records_leave_the_others_of_their_batch_alone(guard: Running, topic: str) -> None:
    """Good records before and after a broken one count: the last one decides, and it is decided."""
    of, other = numbers(2, partition=1)
    make = PER_NUMBER[topic]
    await guard.client.put_all([consent(of), (topic, make(of))])
    sent = await guard.client.put_raw(topic, other.encode(), b"{")
    await guard.client.put_all([(topic, make(of))])
    report = await rejected(guard, sent, topic)
    assert report["error"]["code"] == "json"
    assert base64.b64decode(report["value"]) == b"{"
    expected = {"objections": ["E_OBJECTION"]}.get(topic, [])
    assert await reasons(guard, of) == expected


async def test_an_event_of_impossible_size_in_a_number_is_refused_before_it_reaches_the_state(guard: Running) -> None:
    """An age of thirty digits is JSON, and no age; it must not be what ends the worker when the state is written."""
    (of,) = numbers(1)
    topic, value = callee(of)
    sent = await guard.client.put_raw(topic, of.encode(), encode(value).replace(b'"age":44', b'"age":' + b"4" * 30))
    report = await rejected(guard, sent, topic)
    assert (report["error"]["code"], report["error"]["field"]) == ("format", "age")
    await guard.client.put_all([consent(of)])
    assert await reasons(guard, of) == []


# --- broken objections ----------------------------------------------------------------------------------------------------------

CAN_OBJECT: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "objection": objection,
    "consent": consent,
    "withdrawal": withdrawal,
    "objected outcome": lambda of: outcome(of, "objected"),
}
BREAK: dict[str, Callable[[bytes], bytes | None]] = {
    "cut off": lambda raw: raw[:-1],
    "a field missing": without_field("at"),
    "an impossible date": with_field("at", "2026-02-30T13:00:00Z"),
    "no object": lambda raw: b"[]",
    "null": lambda raw: None,
    "too large": with_field("note", "x" * MAX_RECORD_BYTES),
    "a key twice": lambda raw: raw[:-1] + b',"event_id":"again"}',
}


@pytest.mark.parametrize("how", BREAK)
@pytest.mark.parametrize("what", CAN_OBJECT)
async def test_what_may_be_an_objection_and_cannot_be_read_suspends_its_number(guard: Running, what: str, how: str) -> None:
    """The number is S_QUARANTINED, another one of the partition is not."""
    of, neighbour = numbers(2, partition=2)
    await guard.client.put_all([consent(of), consent(neighbour)])
    topic, value = CAN_OBJECT[what](of)
    sent = await guard.client.put_raw(topic, of.encode(), BREAK[how](encode(value)))
    assert "S_QUARANTINED" in await reasons(guard, of)
    assert await reasons(guard, neighbour) == []
    await rejected(guard, sent, topic)


@pytest.mark.parametrize("result", ["connected", "no_answer", "busy", "not_interested", "abandoned", "silent"])
async def test_a_broken_outcome_that_was_no_objection_suspends_nobody(guard: Running, result: str) -> None:
    """Its result can be read and is not objected."""
    (of,) = numbers(1)
    topic, value = outcome(of, result)
    sent = await guard.client.put_raw(topic, of.encode(), encode(without(value, "campaign_id")))
    assert (await rejected(guard, sent, topic))["error"]["code"] == "missing"
    assert "S_QUARANTINED" not in await reasons(guard, of)


@pytest.mark.parametrize("result", [None, "OBJECTED", "hung_up", 7, ["connected"]])
async def test_a_broken_outcome_whose_result_cannot_be_read_suspends_its_number(guard: Running, result: Any) -> None:
    """It may have been an objection."""
    (of,) = numbers(1)
    topic, value = outcome(of, result)
    await guard.client.put_raw(topic, of.encode(), encode(value))
    assert "S_QUARANTINED" in await reasons(guard, of)


@pytest.mark.parametrize("topic", ["callees", "relationships", "invitations", "quarantine-releases"])
async def test_a_broken_record_that_is_no_objection_suspends_nobody(guard: Running, topic: str) -> None:
    """It is reported, and the number stays as it was."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    sent = await guard.client.put_raw(topic, of.encode(), b"{")
    await rejected(guard, sent, topic)
    assert await reasons(guard, of) == []


NUMBER_FIELDS: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda raw: raw,
    "cut off": lambda raw: raw[:-1],
    "escaped": replaced('"number":"+', b'"number":"\\u002b'),
    "escaped and cut off": lambda raw: replaced('"number":"+', b'"number" : "\\u002b')(raw)[:-1],
    "no UTF-8": replaced("2026-11-2", b"\xff"),
    "too large": with_field("note", "x" * MAX_RECORD_BYTES),
}


@pytest.mark.parametrize("how", NUMBER_FIELDS)
@pytest.mark.parametrize("what", ["objection", "objected outcome"])
async def test_where_key_and_number_disagree_both_are_suspended_wherever_they_live(guard: Running, what: str, how: str) -> None:
    """The number's own partition may be another one than the record's; the report is written once."""
    (key,), (of,) = numbers(1, partition=0), numbers(1, partition=3)
    await guard.client.put_all([consent(key), consent(of)])
    topic, value = CAN_OBJECT[what](of)
    sent = await guard.client.put_raw(topic, key.encode(), NUMBER_FIELDS[how](encode(value)))
    assert sent.partition == 0
    report = await rejected(guard, sent, topic)
    assert report["key"] == key
    assert "S_QUARANTINED" in await reasons(guard, key)
    await wait_for(lambda: suspended(guard, of), within_s=10)
    assert [one for one in guard.client.rejected if one["key"] in (key, of)] == [report]


async def suspended(guard: Running, of: str) -> bool:
    return "S_QUARANTINED" in await reasons(guard, of)


async def test_an_objection_without_a_key_suspends_the_number_in_its_field(guard: Running) -> None:
    """Wherever it landed."""
    (of,) = numbers(1, partition=1)
    await guard.client.put_all([consent(of)])
    sent = await guard.client.put_raw("objections", None, encode(objection(of)[1]), partition=2)
    report = await rejected(guard, sent, "objections")
    assert (report["error"]["code"], report["error"]["field"], report["key"]) == ("key_mismatch", "number", None)
    await wait_for(lambda: suspended(guard, of), within_s=10)


async def test_a_suspension_lasts_until_an_operator_releases_the_number(
    guard: Running,
) -> None:
    """Good facts sent later do not release it; the operator does, and a broken objection after that suspends it again."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    assert await reasons(guard, of) == []
    await guard.client.put_raw("objections", of.encode(), b"{")
    assert "S_QUARANTINED" in await reasons(guard, of)
    await guard.client.put_all([consent(of), callee(of)])
    assert "S_QUARANTINED" in await reasons(guard, of)
    await guard.client.put_all([release(of)])
    assert await reasons(guard, of) == []
    await guard.client.put_raw("objections", of.encode(), b"}")
    assert "S_QUARANTINED" in await reasons(guard, of)


async def test_a_release_does_not_reach_another_number(guard: Running) -> None:
    """Neither the neighbour's nor one whose key disagrees."""
    of, other = numbers(2, partition=1)
    await guard.client.put_raw("objections", of.encode(), b"{")
    await guard.client.put_all([release(other)])
    sent = await guard.client.put_raw("quarantine-releases", other.encode(), encode(release(of)[1]))
    assert (await rejected(guard, sent, "quarantine-releases"))["error"]["code"] == "key_mismatch"
    assert "S_QUARANTINED" in await reasons(guard, of)


# --- reference topics -----------------------------------------------------------------------------------------------------------


async def test_a_broken_party_or_campaign_is_reported_and_the_entry_before_it_stays(guard: Running) -> None:
    """Requests go on with what was on file."""
    (of,) = numbers(1)
    party_id, campaign_id = fresh("P"), fresh("c")
    fields = {"advertiser_id": party_id, "campaign_id": campaign_id}
    await guard.client.put_all([party(party_id), campaign(campaign_id), consent(of, party_ids=[party_id])])
    cli = {"number": None, "withheld": True}
    assert await reasons(guard, of, **fields, cli=cli) == ["E_CLI_WITHHELD"]
    for topic, key, entry, code in (
        ("parties", party_id, b"{", "json"),
        ("parties", party_id, encode(party(party_id, legal_form="bv")[1]), "enum"),
        ("parties", party_id, encode(party("other")[1]), "key_mismatch"),
        ("campaigns", campaign_id, encode(campaign(campaign_id, objection_offered="no")[1]), "type"),
        ("campaigns", campaign_id, encode(campaign(campaign_id)[1]).replace(b"{", b'{"abandoned_share_24h":1e400,', 1), "format"),
    ):
        sent = await guard.client.put_raw(topic, key.encode(), entry)
        report = await rejected(guard, sent, topic)
        assert (report["error"]["code"], report["key"]) == (code, key)
        assert base64.b64decode(report["value"]) == entry
    assert await reasons(guard, of, **fields, cli=cli) == ["E_CLI_WITHHELD"]


async def test_unknown_fields_are_ignored_and_counted(guard: Running) -> None:
    """On requests, facts and reference entries."""
    (of,) = numbers(1)
    before = guard.worker.guard.counts["unknown fields"]
    topic, value = consent(of)
    await guard.client.put_all([(topic, {**value, "colour": "red", "size": {"w": 1}}), party("A", colour="red")])
    assert await reasons(guard, of, colour=[1, {"a": None}]) == []
    assert guard.worker.guard.counts["unknown fields"] - before == 4


async def test_the_report_lies_in_the_partition_of_the_record_under_its_key(guard: Running) -> None:
    """A reader of one partition sees everything about its numbers."""
    (of,) = numbers(1, partition=3)
    sent = await guard.client.put_raw("callees", of.encode(), b"{")
    report = await rejected(guard, sent, "callees")
    assert (report["partition"], report["key"]) == (home(of, PARTITIONS), of)
