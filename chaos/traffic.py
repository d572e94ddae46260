"""What the load sends: call requests about many numbers, and the facts, repeats and broken records between them.

The order of everything is a pure function of the seed; only the instants in the records are those of the sending.

Half the numbers have a good consent of before, so their requests are approved. Some of them object, in one of seven ways, right
before or after a request of theirs; most give a new consent half a minute later, so that approvals do not run out.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from rules.events import REFERENCE_KEYS, REQUEST_TOPIC
from rules.instants import format_instant
from streams.partitioner import partition_of

NUMBERS = 60_000
#: Of the numbers, every so manieth has a consent from the start.
_CONSENTED_EVERY = 2
_BEFORE = "2026-11-20T10:00:00Z"
_CALLER_NUMBER = "+31201234567"

#: How often what happens, times a second; whatever the rate of requests.
_STOPS_PER_S = {
    "objection": 3.0,
    "withdrawal": 1.0,
    "objected": 0.5,
    "brand": 0.7,
    "call_centre": 0.7,
    "optout": 0.4,
    "broken": 0.4,
}
_OTHERS_PER_S = {
    "repeat": 10.0,
    "new_consent": 2.0,
    "callee": 1.0,
    "no_answer": 0.5,
    "misplaced_request": 0.3,
    "misplaced_objection": 0.2,
    "broken_request": 0.2,
    "conflict": 0.2,
}
#: A stop comes so long after the request: at once, while it is decided, or while the approval is used.
_STOP_DELAYS_S = ((0.0, 0.0), (0.0, 0.05), (0.05, 3.0))
_RENEWED_AFTER_S = (20.0, 60.0)
_RELEASED_AFTER_S = (5.0, 20.0)
#: A repeat is of one of so many requests back.
_REPEATED_FROM_LAST = 60_000

_REQUEST = (
    '{"request_id":"%s","number":"%s","dial_at":"%s",%s"purpose":"commercial","subject":"energy","own_offer":true,'
    '"dialling_mode":"manual","cli":{"number":"' + _CALLER_NUMBER + '","withheld":false},"person_ref":"p-1"}'
)
#: For whom the calls are, and how many in ten: for A itself, for A through a call centre, for C.
_CALLERS = (
    *['"advertiser_id":"A","campaign_id":"c-A",'] * 6,
    *['"advertiser_id":"A","campaign_id":"c-A","call_centre_id":"X",'] * 3,
    '"advertiser_id":"C","campaign_id":"c-C",',
)
_encode = msgspec.json.Encoder().encode


class Put(NamedTuple):
    """A record to be sent: topic without prefix, key, value, and the partition where it is not the key's own."""

    topic: str
    key: bytes
    value: bytes
    partition: int | None = None


def phone_number(position: int) -> str:
    """One of a million mobile numbers."""
    return f"+3161{position:07d}"


class Traffic:
    """The load of one run.

    Args:
        seed: the same seed gives the same order of records.
        rate: requests a second that will be sent, at least 50; what happens beside them is spaced by it.
        partitions: of the per-number topics.
        numbers: how many there are.

    Raises:
        ValueError: the rate is lower than that.
    """

    def __init__(self, seed: int, rate: float, partitions: int, numbers: int = NUMBERS) -> None:
        if rate < 50:
            raise ValueError("--rate: want 50 requests a second or more")
        self._rng = random.Random(seed)
        self._rate = rate
        self._partitions = partitions
        self._numbers = [phone_number(position) for position in range(numbers)]
        self._consented = {number: position % _CONSENTED_EVERY == 0 for position, number in enumerate(self._numbers)}
        self._turn = 0
        self._ids = itertools.count()
        self._later: list[tuple[float, int, Callable[[str], list[Put]]]] = []
        self._order = itertools.count()
        self._recent: list[Put] = []
        self._stop_kinds, self._stop_weights = [*_STOPS_PER_S], [*_STOPS_PER_S.values()]
        self._other_kinds, self._other_weights = [*_OTHERS_PER_S], [*_OTHERS_PER_S.values()]
        #: Only every so manieth request can be stopped at all.
        self._stop_chance = sum(self._stop_weights) / rate * _CONSENTED_EVERY
        self._other_chance = sum(self._other_weights) / rate

    def before(self) -> Iterator[Put]:
        """The reference entries, and the consents that are there from the start."""
        for party_id, fields in (("A", {"brand": "zon"}), ("B", {"brand": "zon"}), ("C", {})):
            party = {"party_id": party_id, "name": party_id, "legal_form": "private_company", "country": "NL", **fields}
            yield _reference("parties", party)
        for advertiser_id in ("A", "C"):
            campaign = {"campaign_id": f"c-{advertiser_id}", "advertiser_id": advertiser_id, "objection_offered": True}
            yield _reference("campaigns", campaign)
        line = {"number": _CALLER_NUMBER, "owner_id": "A", "callable_back": True, "tariff": "normal", "published_by": ["A", "C"]}
        yield _reference("caller-numbers", line)
        for number, consented in self._consented.items():
            if consented:
                yield self._consent(number, _BEFORE)

    def turn(self, now: int) -> list[Put]:
        """The next request, and what else is due with it.

        Args:
            now: the guard's clock, microseconds.
        """
        due_s = self._turn / self._rate
        self._turn += 1
        at = format_instant(now)
        puts = [self._request(at, due_s)]
        while self._later and self._later[0][0] <= due_s:
            puts += heapq.heappop(self._later)[2](at)
        if self._rng.random() < self._other_chance:
            (kind,) = self._rng.choices(self._other_kinds, self._other_weights)
            puts.append(self._other(kind, at))
        return puts

    def _request(self, at: str, due_s: float) -> Put:
        rng = self._rng
        number = rng.choice(self._numbers)
        put = self._asked(number, at)
        if len(self._recent) < _REPEATED_FROM_LAST:
            self._recent.append(put)
        else:
            self._recent[self._turn % _REPEATED_FROM_LAST] = put
        if self._consented[number] and rng.random() < self._stop_chance:
            (kind,) = rng.choices(self._stop_kinds, self._stop_weights)
            self._consented[number] = False
            self._in(due_s + rng.uniform(*rng.choice(_STOP_DELAYS_S)), lambda at: [self._stop(kind, number, at)])
            if kind == "broken":
                self._in(due_s + rng.uniform(*_RELEASED_AFTER_S), lambda at: [self._release(number, at)])
            elif kind != "objected":  # its outcome is an attempt, and a second one on the same day is against the policy
                self._in(due_s + rng.uniform(*_RENEWED_AFTER_S), lambda at: [self._renewed(number, at)])
        return put

    def _asked(self, number: str, at: str) -> Put:
        value = _REQUEST % (self._id("q"), number, at, self._rng.choice(_CALLERS))
        return Put(REQUEST_TOPIC, number.encode(), value.encode())

    def _in(self, due_s: float, make: Callable[[str], list[Put]]) -> None:
        heapq.heappush(self._later, (due_s, next(self._order), make))

    def _stop(self, kind: str, number: str, at: str) -> Put:
        """An event that ends the approvals of a number."""
        topic, fields = "objections", dict[str, Any]()
        match kind:
            case "withdrawal":
                topic, fields = "consents", {"kind": "withdrawn", "party_ids": self._rng.choice((["A"], ["A", "C"], []))}
            case "objected":
                topic, fields = "call-outcomes", {"advertiser_id": "A", "campaign_id": "c-A", "result": "objected"}
            case "optout":
                topic = "relationships"
                fields = {"relationship_id": self._id("r"), "advertiser_id": "A", "kind": "account", "optout_used": True}
            case "brand":
                fields = {"advertiser_id": "B", "channel": "web"}
            case "call_centre":
                fields = {"call_centre_id": "X", "scope": "whole_call_centre", "channel": "call"}
            case _:
                fields = {"advertiser_id": "A", "channel": "ivr"}
        put = self._fact(topic, number, at, **fields)
        return put._replace(value=put.value[:-7]) if kind == "broken" else put

    def _release(self, number: str, at: str) -> Put:
        self._consented[number] = True
        return self._fact("quarantine-releases", number, at, released_by="storm", reason="repaired")

    def _renewed(self, number: str, at: str) -> Put:
        self._consented[number] = True
        return self._consent(number, at)

    def _other(self, kind: str, at: str) -> Put:
        """A repeat, a conflict, a broken or misplaced record, or a fact that stops nothing that is live."""
        number = self._rng.choice(self._numbers)
        if kind in {"new_consent", "no_answer", "misplaced_objection"}:
            self._consented[number] = kind == "new_consent"
        match kind:
            case "repeat":
                put = self._rng.choice(self._recent)
            case "conflict":
                earlier = self._rng.choice(self._recent)
                put = earlier._replace(value=earlier.value.replace(b'"manual"', b'"predictive"'))
            case "new_consent":
                put = self._consent(number, at)
            case "callee":
                put = self._fact("callees", number, at, legal_form="natural_person", person_ref="p-1", age=44)
            case "no_answer":
                put = self._fact("call-outcomes", number, at, advertiser_id="A", campaign_id="c-A", result="no_answer")
            case "misplaced_request":
                put = self._elsewhere(self._asked(number, at))
            case "misplaced_objection":
                put = self._elsewhere(self._fact("objections", number, at, advertiser_id="A"))
            case _:
                put = Put(REQUEST_TOPIC, number.encode(), b'{"request_id":')
        return put

    def _elsewhere(self, put: Put) -> Put:
        """The record in a partition that is not its own, as a producer with another partitioner would put it."""
        return put._replace(partition=(partition_of(put.key, self._partitions) + 1) % self._partitions)

    def _consent(self, number: str, at: str) -> Put:
        return self._fact(
            "consents",
            number,
            at,
            kind="given",
            party_ids=["A", "C"],
            subjects=["energy"],
            channels=["telephone"],
            capture="unticked_box",
            evidence={"uri": "https://example.org/1", "sha256": "00"},
            person_ref="p-1",
            verified_by="sms",
            giver_age=44,
        )

    def _fact(self, topic: str, number: str, at: str, **fields: Any) -> Put:
        return Put(topic, number.encode(), _encode({"event_id": self._id("e"), "number": number, "at": at, **fields}))

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._ids)}"


def _reference(topic: str, entry: dict[str, Any]) -> Put:
    return Put(topic, entry[REFERENCE_KEYS[topic]].encode(), _encode(entry))
