"""The made-up day in order: what stands before it, and what happens from 14:00 on."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ops.day.cast import CAMPAIGNS, COLD_CAMPAIGNS, CONSENT_CAMPAIGNS, PARTY_NAMES, Campaign, reference
from ops.day.consents import given, withdrawn
from ops.day.event import Event
from ops.day.history import History
from ops.day.people import Person, chance, number_of, one_of
from ops.day.requests import broken, call_request
from rules.instants import format_instant, parse_instant

#: Monday 23 November 2026, 14:00 in Amsterdam.
DAY_START = "2026-11-23T13:00:00Z"

#: How approved calls end, in shares.
_RESULTS = {"connected": 40, "no_answer": 27, "busy": 8, "not_interested": 14, "objected": 6, "silent": 2, "abandoned": 3}
_NOTED = ("number", "advertiser_id", "intermediary_id", "call_centre_id", "campaign_id", "request_id")


class Approval(Protocol):
    """What the day looks at in a decision."""

    @property
    def request_id(self) -> str: ...  # noqa: D102  # as in the wire contract
    @property
    def number(self) -> str: ...  # noqa: D102
    @property
    def campaign_id(self) -> str: ...  # noqa: D102
    @property
    def advertiser_id(self) -> str: ...  # noqa: D102
    @property
    def intermediary_id(self) -> str | None: ...  # noqa: D102
    @property
    def call_centre_id(self) -> str | None: ...  # noqa: D102


class Day:
    """The generated day.

    Its people are a window over an endless row: person *i* follows from the seed and *i* alone. ``live()`` moves the window on
    as call lists do, which keeps memory flat and shares steady for hours (until 22:00, when calling hours end).

    Args:
        seed: the same seed gives the same records, times taken from the clock aside.
        numbers: people whose facts stand before the day; this many are on the call lists at any time.
        start: instant at which the day starts (microseconds since 1970); history lies before it.
    """

    #: What to call each party on a screen, by party_id.
    names = PARTY_NAMES

    def __init__(self, seed: int = 1, numbers: int = 6000, start: int | None = None) -> None:
        if numbers < 1:
            raise ValueError("numbers: want at least one")
        self.seed = seed
        self.numbers = numbers
        self.start = parse_instant(DAY_START) if start is None else start
        self._people: deque[Person] = deque(maxlen=numbers)
        self._next_person = 0
        self._count = 0
        self._approved: deque[dict[str, Any]] = deque(maxlen=1000)
        self._recent: deque[Event] = deque(maxlen=200)

    def reference(self) -> Iterator[Event]:
        """Parties, campaigns and caller numbers."""
        return reference()

    def facts(self) -> Iterator[Event]:
        """What is known of the first ``numbers`` people before the day starts. Person by person, so that memory stays flat."""
        while self._next_person < self.numbers:
            yield from self._new_person()

    def probes(self, now: int, count: int) -> Iterator[Event]:
        """Call requests for some of the people in ``facts()``, with ids of their own: has the guard taken all in?"""
        rng = random.Random(f"{self.seed}/probes")
        for _ in range(count):
            yield call_request(rng, self._anyone(rng), now=now, request_id=self._id("probe"))

    def note_approved(self, decision: Approval) -> None:
        """Tell the day of an approval; outcomes of some follow in ``live``."""
        self._approved.append({field: getattr(decision, field) for field in _NOTED})

    def live(self, rng: random.Random, now: Callable[[], int]) -> Iterator[Event]:
        """The day's events, without end: nine in ten are call requests.

        Args:
            rng: decides what happens next; the same one, ``now`` and approvals noted give the same events.
            now: the guard's clock (microseconds since 1970). A request is to be dialled at most 30 s after it.

        Yields:
            Events in the order in which they happen. Take ``facts()`` first, or people whose facts nobody has sent are called.
        """
        for _ in self.facts():
            pass
        happenings: dict[Callable[[random.Random, int], Iterator[Event]], float] = {
            self._request: 100.0,
            self._repeat: 1.5,
            self._newcomer: 3.2,
            self._outcome: 2.0,
            self._new_consent: 0.4,
            self._objection: 0.35,
            self._withdrawal: 0.15,
            self._broken_request: 0.25,
            self._broken_objection: 0.02,
        }
        kinds, weights = tuple(happenings), tuple(happenings.values())
        while True:
            for happen in rng.choices(kinds, weights, k=256):
                yield from happen(rng, now())

    # --- what happens -----------------------------------------------------------------------------

    def _request(self, rng: random.Random, now: int) -> Iterator[Event]:
        event = call_request(rng, self._anyone(rng), now=now, request_id=self._id("call"))
        self._recent.append(event)
        yield event

    def _repeat(self, rng: random.Random, _now: int) -> Iterator[Event]:
        """A dialler that got no answer in time sends the same request again."""
        if self._recent:
            yield rng.choice(self._recent)._replace(again=True)

    def _newcomer(self, _rng: random.Random, _now: int) -> Iterator[Event]:
        yield from self._new_person()

    def _outcome(self, rng: random.Random, now: int) -> Iterator[Event]:
        """How an approved call ended. Only some of them: the demo calls a town's worth of people within minutes."""
        if self._approved:
            call = self._approved.popleft()
            number, result = call["number"], one_of(rng, _RESULTS)
            value = {"event_id": self._id("outcome"), "number": number, "at": format_instant(now), **call, "result": result}
            yield Event("call-outcomes", number, value)

    def _new_consent(self, rng: random.Random, now: int) -> Iterator[Event]:
        person = self._anyone(rng)
        campaign = CAMPAIGNS[one_of(rng, CONSENT_CAMPAIGNS)]
        yield given(rng, person, campaign.responsible_id, campaign.subject, at=now, event_id=self._id("consent"))

    def _objection(self, rng: random.Random, now: int) -> Iterator[Event]:
        value = self._objecting(rng, now)
        yield Event("objections", value["number"], value)

    def _withdrawal(self, rng: random.Random, now: int) -> Iterator[Event]:
        person = self._anyone(rng)
        yield withdrawn(person, _campaign_of(rng, person).responsible_id, at=now, event_id=self._id("withdrawal"))

    def _broken_request(self, rng: random.Random, now: int) -> Iterator[Event]:
        yield broken(rng, call_request(rng, self._anyone(rng), now=now, request_id=self._id("call")))

    def _broken_objection(self, rng: random.Random, now: int) -> Iterator[Event]:
        """An objection that cannot be read: the guard suspends the number rather than lose it."""
        value = self._objecting(rng, now) | {"at": "gisteren"}
        yield Event("objections", value["number"], value, sound=False)

    # --- what they are made of --------------------------------------------------------------------

    def _objecting(self, rng: random.Random, now: int) -> dict[str, Any]:
        """Somebody has had enough; every second time just after an approval, which is then recalled."""
        just_approved = self._approved[-1] if self._approved and chance(rng, 50) else None
        person = self._anyone(rng)
        told = {"number": person.number, **_campaign_of(rng, person).roles}
        if just_approved is not None:
            told = {field: just_approved[field] for field in told}
        value = {
            "event_id": self._id("objection"),
            "number": told["number"],
            "at": format_instant(now),
            **told,
            "channel": rng.choice(("call", "ivr", "web", "email")),
        }
        if told["call_centre_id"] and chance(rng, 20):
            value["scope"] = "whole_call_centre"
        return value

    def _id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self.seed}-{self._count:08d}"

    def _anyone(self, rng: random.Random) -> Person:
        return rng.choice(self._people)

    def _new_person(self) -> list[Event]:
        """The next person of the row joins the call lists, and the one who has been on them longest leaves."""
        index = self._next_person
        self._next_person += 1
        rng = random.Random(f"{self.seed}/{index}")
        history = History(rng, number_of(self.seed, index), f"person-{self.seed}-{index}", self.start)
        self._people.append(history.write())
        return history.events


def _campaign_of(rng: random.Random, person: Person) -> Campaign:
    """A campaign that has the person's number, or one that calls anybody."""
    return CAMPAIGNS[rng.choice(person.campaigns or COLD_CAMPAIGNS)]
