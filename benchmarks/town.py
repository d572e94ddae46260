"""Numbers of one kind, as many as wanted, with as many facts each: for parts that vary or write their count."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from benchmarks.servers import PARTITIONS
from benchmarks.workload import Request
from rules.events import read_event
from rules.facts import NumberFacts
from rules.instants import MINUTE, format_instant, parse_instant
from streams.kept import pack
from streams.partitioner import partition_of

CLOCK_START = parse_instant("2026-11-23T09:00:00Z")
_SHOWN = "+31880000001"

_encode = msgspec.json.Encoder().encode
Event = tuple[str, dict[str, Any]]


class Size(NamedTuple):
    """So many numbers with so many facts each."""

    numbers: int
    facts: int


@dataclass(frozen=True, slots=True)
class Town:
    """Numbers that all have a consent, and requests about them, picked at random; the same for the same seed."""

    size: Size
    count: int
    seed: int = 1

    def __len__(self) -> int:
        return self.count

    def requests(self, label: str, count: int) -> Iterator[Request]:
        """Requests under ids of their own, dialled ten minutes after the clock starts."""
        pick = random.Random(f"{self.seed} {label}")
        common = {
            "dial_at": format_instant(CLOCK_START + 10 * MINUTE), "advertiser_id": "adv-1", "campaign_id": "c-1",
            "purpose": "commercial", "subject": "energy", "own_offer": True, "dialling_mode": "manual",
            "cli": {"number": _SHOWN, "withheld": False},
            "person_ref": "p-1",
        }  # fmt: skip
        for index in range(count):
            number = number_of(pick.randrange(self.size.numbers))
            key = number.encode()
            value = _encode({"request_id": f"{label}-{index}", "number": number, **common})
            yield Request(f"{label}-{index}", key, value, partition_of(key, PARTITIONS))


def number_of(n: int) -> str:
    """The number of person ``n``; all are of the same length."""
    return f"+316{10_000_000 + n}"


def reference() -> Iterator[Event]:
    """Topic and record of the one party that calls, its campaign and its number."""
    yield "parties", {"party_id": "adv-1", "name": "One", "legal_form": "private_company"}
    yield "campaigns", {"campaign_id": "c-1", "advertiser_id": "adv-1", "objection_offered": True, "abandoned_share_24h": 0.0}
    yield "caller-numbers", {
        "number": _SHOWN, "owner_id": "adv-1", "callable_back": True, "tariff": "normal", "published_by": ["adv-1"],
    }  # fmt: skip


def facts_of(number: str, count: int) -> Iterator[Event]:
    """A good consent, an objection against another advertiser, and unanswered calls of that one."""
    common = {"number": number, "at": "2026-11-20T10:00:00Z"}
    yield "consents", {
        "event_id": f"c-{number}", **common, "kind": "given", "party_ids": ["adv-1"], "subjects": ["energy"], "channels": ["telephone"],
        "capture": "unticked_box", "evidence": {"uri": f"https://crm.example/{number}", "sha256": "00"}, "person_ref": "p-1",
        "verified_by": "sms", "giver_age": 44,
    }  # fmt: skip
    if count > 1:
        yield "objections", {"event_id": f"o-{number}", **common, "advertiser_id": "adv-2"}
    for n in range(2, count):
        yield "call-outcomes", {
            "event_id": f"r-{number}-{n}", **common, "advertiser_id": "adv-2", "campaign_id": "c-2", "result": "no_answer",
        }  # fmt: skip


def state_of(number: str, count: int) -> bytes:
    """What a worker keeps of a number after these facts."""
    facts = NumberFacts()
    for topic, value in facts_of(number, count):
        facts.apply(read_event(topic, number.encode(), _encode(value))[0])  # type: ignore[arg-type]  # a fact of a number
    return pack(facts)
