"""``ringfence rejected`` and ``ringfence quarantine``: from a broken objection to a released number, with a guard that runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ops.rejected import printable, shown_value
from rules.e164 import masked, masked_in
from rules.events import MAX_RECORD_BYTES
from tests.harness import Running, encode, ringfence
from tests.scene import ask, callee, consent, fresh, home, numbers, objection, running_scene
from tests.servers import wait_for

PARTITIONS = 4


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """One guard for all tests of this file; each uses numbers of its own."""
    async with running_scene(kafka, redis_url, partitions=PARTITIONS) as guard:
        yield guard


@pytest.fixture
def settings(guard: Running, redis_url: str) -> dict[str, str]:
    """The operator's environment, by which commands find the guard's servers."""
    its = guard.client.settings
    return {
        "RINGFENCE_KAFKA": its.kafka,
        "RINGFENCE_REDIS": redis_url,
        "RINGFENCE_TOPIC_PREFIX": its.topic_prefix,
        "RINGFENCE_REDIS_PREFIX": its.redis_prefix,
    }


async def break_something(guard: Running, topic: str, key: bytes | None, raw: bytes | None, **options: Any) -> dict[str, Any]:
    """Put a broken record and wait for its report."""
    sent = await guard.client.put_raw(topic, key, raw, **options)

    def report() -> list[dict[str, Any]]:
        place = (topic, sent.partition, sent.offset)
        return [one for one in guard.client.rejected if (one["topic"], one["partition"], one["offset"]) == place]

    return (await wait_for(report))[0]


async def listed(settings: dict[str, str], report: dict[str, Any]) -> dict[str, Any]:
    """The line of ``rejected list`` that stands for a report."""
    ended = await ringfence(settings, "rejected", "list", "--json", "--topic", report["topic"])
    assert ended.code == 0, ended.err
    (event,) = [
        one for one in json.loads(ended.out)["events"] if (one["partition"], one["offset"]) == (report["partition"], report["offset"])
    ]
    return event


async def reasons(guard: Running, of: str) -> list[str]:
    return (await ask(guard.client, of))["reasons"]


# --- the whole way ------------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
async def test_from_a_broken_objection_to_a_released_number(guard: Running, settings: dict[str, str], tmp_path: Path) -> None:
    """List, show, repair, publish again, release: the number is blocked by its objection from then on, and no longer suspended."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    _, meant = objection(of)
    broken = encode({**meant, "at": "2026-11-23T13:00:00"})
    event = await listed(settings, await break_something(guard, "objections", of.encode(), broken))
    assert event["key"] == masked(of)
    assert event["error"]["code"] == "format"
    assert "S_QUARANTINED" in await reasons(guard, of)

    ended = await ringfence(settings, "quarantine", "list", "--json", "--unmasked")
    assert ended.code == 0, ended.err
    (suspended,) = [one for one in json.loads(ended.out)["suspended"] if one["number"] == of]
    assert suspended["confirmed"]
    assert suspended["causes"] == [{"id": event["id"], "topic": "objections", "code": "format"}]
    ended = await ringfence(settings, "quarantine", "list")
    assert masked(of) in ended.out
    assert of not in ended.out + ended.err

    shown = await ringfence(settings, "rejected", "show", event["id"])
    assert shown.code == 0, shown.err
    assert "2026-11-23T13:00:00" in shown.out
    assert of not in shown.out
    assert of in (await ringfence(settings, "rejected", "show", event["id"], "--unmasked")).out
    assert (await ringfence(settings, "rejected", "show", event["id"], "--raw")).out.encode() == broken

    repaired = tmp_path / "event.json"
    repaired.write_bytes(broken)
    refused = await ringfence(settings, "rejected", "replay", event["id"], "--edited", str(repaired), "--yes")
    assert (refused.code, refused.out) == (1, "")
    assert "still broken: format, at:" in refused.err
    repaired.write_bytes(encode(meant))
    unasked = await ringfence(settings, "rejected", "replay", event["id"], "--edited", str(repaired))
    assert (unasked.code, unasked.out) == (2, "")
    assert "--yes" in unasked.err
    done = await ringfence(settings, "rejected", "replay", event["id"], "--edited", str(repaired), "--yes")
    assert done.code == 0, done.err
    assert f"{event['id']} -> {guard.client.settings.topic('objections')} {home(of, PARTITIONS)}@" in done.out

    words = ("quarantine", "release", of, "--by", "m.jansen", "--reason", "sent again")
    released = await ringfence(settings, *words)
    assert released.code == 0, released.err
    assert f"{masked(of)} is released" in released.out
    assert await reasons(guard, of) == ["E_OBJECTION"]
    again = await ringfence(settings, *words)
    assert (again.code, again.out) == (1, f"{masked(of)} is not suspended; nothing published (--force publishes a release)\n")
    listing = await ringfence(settings, "quarantine", "list", "--json", "--unmasked")
    assert of not in listing.out


# --- rejected -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
async def test_a_listing_is_filtered_limited_and_newest_first(guard: Running, settings: dict[str, str]) -> None:
    """By topic, code and instant; what is left out is counted."""
    for of in numbers(3):
        await break_something(guard, "callees", of.encode(), b"{")
    await break_something(guard, "callees", numbers(1)[0].encode(), None)
    every = json.loads((await ringfence(settings, "rejected", "list", "--json", "--topic", "callees", "--code", "json")).out)
    assert (every["matching"], {one["error"]["code"] for one in every["events"]}) == (3, {"json"})
    newest = json.loads((await ringfence(settings, "rejected", "list", "--json", "--topic", "callees", "--limit", "1")).out)
    assert (newest["matching"], [one["error"]["code"] for one in newest["events"]]) == (4, ["null_value"])
    at, later = "2026-11-23T13:00:00Z", "2026-11-23T13:00:01Z"
    assert json.loads((await ringfence(settings, "rejected", "list", "--json", "--since", at)).out)["matching"] >= 4
    assert json.loads((await ringfence(settings, "rejected", "list", "--json", "--since", later)).out)["matching"] == 0
    table = await ringfence(settings, "rejected", "list", "--topic", "callees", "--limit", "2")
    assert table.out.splitlines()[0].split() == ["id", "rejected", "key", "from", "code", "field", "message"]
    assert len(table.out.splitlines()) == 3
    assert "4 rejected events, the newest 2 shown" in table.err


@pytest.mark.broker
async def test_what_is_published_again_lies_where_it_belongs_byte_for_byte(guard: Running, settings: dict[str, str]) -> None:
    """A key that is a number gives its home partition, none stays where it was, and a reference entry goes to partition 0."""
    (of,) = numbers(1, partition=3)
    misplaced = await break_something(guard, "invitations", None, b"[1]", partition=2)
    keyed = await break_something(guard, "invitations", of.encode(), b"[2]")
    entry = await break_something(guard, "campaigns", fresh("c").encode(), b"[3]")
    before = len(guard.client.rejected)
    ids = [(await listed(settings, report))["id"] for report in (misplaced, keyed, entry)]
    done = await ringfence(settings, "rejected", "replay", *ids, "--yes")
    assert done.code == 0, done.err
    assert done.out.count("will be rejected again: type") == 3
    assert done.out.splitlines()[-1] == "3 events published again"
    again = await wait_for(lambda: guard.client.rejected[before:] if len(guard.client.rejected) == before + 3 else None)
    assert {(one["topic"], one["partition"], one["key"], one["value"]) for one in again} == {
        (one["topic"], one["partition"], one["key"], one["value"]) for one in (misplaced, keyed, entry)
    }


@pytest.mark.broker
async def test_events_are_replayed_by_filter(guard: Running, settings: dict[str, str]) -> None:
    """All that match, and only with --yes where nobody can be asked."""
    for of in numbers(2):
        await break_something(guard, "relationships", of.encode(), b"{")
    words = ("rejected", "replay", "--topic", "relationships", "--code", "json")
    assert (await ringfence(settings, *words, typed=b"y\n")).code == 2
    before = len(guard.client.rejected)
    done = await ringfence(settings, *words, "--yes")
    assert done.out.splitlines()[-1] == "2 events published again"
    await wait_for(lambda: len(guard.client.rejected) == before + 2)


@pytest.mark.broker
async def test_a_wrong_key_is_replaced(guard: Running, settings: dict[str, str]) -> None:
    """An event under another number's key is good under its own."""
    of, other = numbers(2)
    topic, value = callee(of)
    event = await listed(settings, await break_something(guard, topic, other.encode(), encode(value)))
    assert event["error"]["code"] == "key_mismatch"
    done = await ringfence(settings, "rejected", "replay", event["id"], "--key", of, "--yes")
    assert done.code == 0, done.err
    assert "rejected again" not in done.out
    assert f"{guard.client.settings.topic(topic)} {home(of, PARTITIONS)}@" in done.out


@pytest.mark.broker
async def test_what_was_cut_is_not_published(guard: Running, settings: dict[str, str]) -> None:
    """The whole record is named instead."""
    (of,) = numbers(1)
    report = await break_something(guard, "call-requests", of.encode(), b"x" * (MAX_RECORD_BYTES + 1))
    event = await listed(settings, report)
    assert event["truncated"]
    done = await ringfence(settings, "rejected", "replay", event["id"], "--yes")
    assert (done.code, done.out) == (1, "0 events published again\n")
    assert f"the whole record is at {report['partition']}@{report['offset']} of call-requests" in done.err


@pytest.mark.broker
async def test_bytes_that_are_no_text_are_shown_and_masked(guard: Running, settings: dict[str, str]) -> None:
    """Escaped while numbers are masked, in base64 when they are not."""
    (of,) = numbers(1)
    event = await listed(settings, await break_something(guard, "callees", of.encode(), b"\xff" + of.encode() + b"\x1b[2J"))
    shown = await ringfence(settings, "rejected", "show", event["id"])
    assert shown.out.splitlines()[-1] == rf"\xff{masked(of)}\x1b[2J"
    unmasked = json.loads((await ringfence(settings, "rejected", "show", event["id"], "--json", "--unmasked")).out)
    assert (unmasked["encoding"], unmasked["key"]) == ("base64", of)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("rejected", "show", "17"), 2, "PARTITION@OFFSET"),
        (("rejected", "show", "0@999999"), 1, "0@999999"),
        (("rejected", "show", "99@0"), 1, "99@0"),
        (("rejected", "list", "--since", "yesterday"), 2, "RFC 3339"),
        (("rejected", "replay", "--yes"), 2, "give IDs"),
        (("rejected", "replay", "0@0", "--topic", "objections"), 2, "give IDs"),
        (("rejected", "replay", "0@0", "0@1", "--key", "x"), 2, "exactly one"),
        (("quarantine", "release", "0612345678", "--by", "x", "--reason", "y"), 2, "argument 1 is not E.164"),
        (("quarantine", "release", "+31612345678", "--by", " ", "--reason", "y"), 2, "--by"),
    ],
)
async def test_what_makes_no_sense_is_refused(settings: dict[str, str], words: tuple[str, ...], code: int, said: str) -> None:
    """With the exit code of its kind and a reason; nothing is published."""
    ended = await ringfence(settings, *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("words", [("rejected", "list"), ("quarantine", "list")])
async def test_without_a_broker_nothing_starts(unused_tcp_port: int, words: tuple[str, ...]) -> None:
    """Exit code 3 and the address."""
    ended = await ringfence({"RINGFENCE_KAFKA": f"127.0.0.1:{unused_tcp_port}"}, *words)
    assert (ended.code, ended.out) == (3, "")
    assert f"127.0.0.1:{unused_tcp_port}" in ended.err
    assert len(ended.err.splitlines()) == 1


# --- quarantine ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
async def test_both_numbers_of_an_event_are_listed_and_harmless_ones_are_not(guard: Running, settings: dict[str, str]) -> None:
    """Key and field may be numbers of two partitions; a broken callee suspends nobody."""
    (key,), (of,), (harmless,) = numbers(1, partition=0), numbers(1, partition=3), numbers(1)
    await break_something(guard, "objections", key.encode(), encode(objection(of)[1]))
    await break_something(guard, "callees", harmless.encode(), b"{")

    async def both_listed() -> bool:
        listing = json.loads((await ringfence(settings, "quarantine", "list", "--json", "--unmasked")).out)
        assert harmless not in str(listing)
        return {key, of} <= {one["number"] for one in listing["suspended"]}

    await wait_for(both_listed, within_s=20)
    scanned = json.loads((await ringfence(settings, "quarantine", "list", "--scan", "--json", "--unmasked")).out)
    assert {key, of} <= {one["number"] for one in scanned["suspended"]}
    assert harmless not in str(scanned)


@pytest.mark.broker
async def test_without_redis_the_list_says_that_it_is_not_confirmed(
    guard: Running, settings: dict[str, str], unused_tcp_port: int
) -> None:
    """Candidates are shown, released ones among them, and a release is refused unless forced."""
    (of,) = numbers(1)
    await break_something(guard, "objections", of.encode(), b"{")
    away = {**settings, "RINGFENCE_REDIS": f"redis://127.0.0.1:{unused_tcp_port}/0"}
    ended = await ringfence(away, "quarantine", "list", "--json", "--unmasked")
    assert ended.code == 1
    listing = json.loads(ended.out)
    assert "Redis does not answer" in listing["trouble"]
    assert [one["confirmed"] for one in listing["suspended"] if one["number"] == of] == [False]
    words = ("quarantine", "release", of, "--by", "x", "--reason", "y")
    refused = await ringfence(away, *words)
    assert (refused.code, refused.out) == (1, "")
    assert "Redis does not answer" in refused.err
    assert "S_QUARANTINED" in await reasons(guard, of)
    forced = await ringfence(away, *words, "--force", "--no-wait")
    assert forced.code == 0, forced.err
    assert "S_QUARANTINED" not in await reasons(guard, of)


# --- masking ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"number":"+31612345678","at":"2026-11-23T13:00:00Z"}', '{"number":"+31*******78","at":"2026-11-23T13:00:00Z"}'),
        ('"\\u002b31612345678"', '"+31*******78"'),
        ('"\\u002B\\u0033\\u0031612345678"', '"+31*******78"'),
        ("0612345678 or 06-12345678", "061*****78 or 06-******78"),
        ("+31 6 12 34 56 78", "+31************78"),
        ("2026-11-23, 2026-11-23T13:00:00.123456+01:00", "2026-11-23, 2026-11-23T13:00:00.123456+01:00"),
        ("+312026-11-23", "+31********23"),
        ("123456", "123456"),
        ("no digits", "no digits"),
    ],
)
def test_whatever_may_be_a_number_is_masked(text: str, shown: str) -> None:
    """In E.164 form or not, also where JSON escapes hide it; dates and instants can still be read."""
    assert masked_in(text) == shown


def test_what_is_shown_does_nothing_to_a_terminal() -> None:
    """Line ends and tabs stay; escape sequences and changes of direction do not."""
    assert printable("a\tb\nc\x1b[2J\u202e") == "a\tb\nc\\x1b[2J\\u202e"
    assert shown_value(None, unmasked=False) == ("null", None)
