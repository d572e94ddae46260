"""Generated calls: lines for the offline door over all regimes and every border of dates, and a town of numbers for today's stream.

Everything is a function of a seed and a position, so one line or one number can be made again without the others.
"""

# ruff: noqa: FBT003  # true and false are options to pick from here
from __future__ import annotations

import itertools
import random
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

Value = dict[str, Any]
Fact = tuple[str, Value]
T = TypeVar("T")

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
SUBJECTS = ("energy", "energy/solar", "energy/solar/panels", "energyx", "insurance", "insurance/car", "telecom")
CAPTURES = ("unticked_box", "spoken", "written", "preticked_box", "combined_tick", "bundled_clause", "terms", "purchased_list")
BAD_CAPTURES = CAPTURES[3:]
CHANNELS = ("telephone", "email", "sms", "post")
SALES = ("purchase", "contract", "subscription", "lottery_participation")
LINKS = ("donation", "volunteering", "event_attendance")
KINDS = (*SALES, *LINKS, "petition", "quote", "trial", "account", "newsletter")
OPTOUTS = ("preticked_call_me", "unticked_do_not_call", "spoken", "written", "terms_only", "none", None)
RESULTS = ("connected", "no_answer", "busy", "not_interested", "abandoned", "silent", "objected")
BUSINESS = ("sole_trader", "general_partnership", "professional_partnership", "limited_partnership")
LEGAL = ("private_company", "public_company", "foundation", "association", "cooperative")
FORMS = ("natural_person", *BUSINESS, *LEGAL, "unknown", None)
MODES = ("sms", "email", "app", "call", "in_person")
SHA = "0" * 64

#: First days of regimes, codes and dated rules (law.md sections 2 and 3).
BORDERS = (
    *(date(2009, 10, 1), date(2011, 1, 1), date(2012, 1, 1), date(2012, 7, 1), date(2016, 7, 1), date(2018, 5, 25)),
    *(date(2020, 1, 1), date(2020, 3, 1), date(2020, 6, 1), date(2021, 7, 1), date(2022, 6, 1)),
    *(date(2024, 3, 1), date(2024, 10, 15), date(2025, 7, 1), date(2026, 7, 1)),
)
REGIMES = {
    "R1": (date(2009, 10, 1), date(2021, 6, 30)),
    "R2": (date(2021, 7, 1), date(2026, 6, 30)),
    "R3": (date(2026, 7, 1), date(2028, 12, 31)),
}
_EASTER_DAYS = (
    "2009-04-12 2010-04-04 2011-04-24 2012-04-08 2013-03-31 2014-04-20 2015-04-05 "
    "2016-03-27 2017-04-16 2018-04-01 2019-04-21 2020-04-12 2021-04-04 2022-04-17 "
    "2023-04-09 2024-03-31 2025-04-20 2026-04-05 2027-03-28 2028-04-16"
)
EASTERS = {day.year: day for day in map(date.fromisoformat, _EASTER_DAYS.split())}


def months_on(day: date, months: int) -> date:
    """The same day some months on, or the last of a shorter month."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


@cache
def special_days(year: int) -> tuple[date, ...]:
    """Days of a year on which the calendar matters: holidays, early stops, summer time."""
    easter = EASTERS[year]
    fixed = ((1, 1), (4, 26), (4, 27), (4, 30), (5, 4), (5, 5), (12, 5), (12, 24), (12, 25), (12, 26))
    changes = [date(year, month, 31) - timedelta((date(year, month, 31).weekday() + 1) % 7) for month in (3, 10)]
    return (*(date(year, *one) for one in fixed), *(easter + timedelta(days) for days in (-2, 0, 1, 39, 49, 50)), *changes)


def utc_text(at: datetime) -> str:
    """An instant as RFC 3339 in UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def read_text(text: str) -> datetime:
    """The instant of an RFC 3339 text."""
    return datetime.fromisoformat(text).astimezone(UTC)


def wall(day: date, hour: int, minute: int = 0, second: int = 0) -> datetime:
    """The instant at which the clocks in Amsterdam show a time."""
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=AMSTERDAM).astimezone(UTC)


def party(party_id: str, **fields: Any) -> Value:
    """A party in good order: a private company with a balance test of three years."""
    return {
        "party_id": party_id,
        "name": f"{party_id} BV",
        "legal_form": "private_company",
        "kinds": [],
        "ddma_member": False,
        "country": "NL",
        "balance_tests": [{"dated": "2017-01-16", "term_months": 36}],
        **fields,
    }


class Scene:
    """One request about one number: who calls, when, and the facts that bear on it."""

    def __init__(self, rng: random.Random, at: datetime, number: str, event_ids: Iterator[str]) -> None:
        self.rng = rng
        self.at = at
        self.day = at.astimezone(AMSTERDAM).date()
        self.number = number
        self.facts: list[Fact] = []
        self.advertiser = "A"
        self.intermediary: str | None = None
        self.centre: str | None = None
        #: A party of the same brand, one that has nothing to do with the call, and a call centre.
        self.others = ["S", "B", "X"]
        self.request: Value = {}
        self._event_ids = event_ids

    @property
    def responsible(self) -> str:
        return self.intermediary or self.advertiser

    def pick(self, *options: Any) -> Any:
        """One of the options, each as likely."""
        return options[int(self.rng.random() * len(options))]

    def sample(self, options: tuple[str, ...], most: int, least: int = 1) -> list[str]:
        """Some of the options."""
        return self.rng.sample(options, self.rng.randint(least, most))

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def ago(self, **span: float) -> datetime:
        """An instant before the call."""
        return self.at - timedelta(**span)

    def near(self, *seconds: int) -> datetime:
        """The call's instant, moved by one of some numbers of seconds."""
        return self.at + timedelta(seconds=self.pick(*seconds))

    def days_on(self, *days: int) -> str:
        """The call's day, moved by one of some numbers of days, as text."""
        return (self.day + timedelta(self.pick(*days))).isoformat()

    def ask(self, **fields: Any) -> Value:
        """Make the request."""
        self.request = {
            "request_id": "q-1",
            "number": self.number,
            "dial_at": utc_text(self.at),
            "advertiser_id": self.advertiser,
            "intermediary_id": self.intermediary,
            "call_centre_id": self.centre,
            "campaign_id": "c-1",
            "purpose": "commercial",
            "subject": self.pick(*SUBJECTS[:3]),
            "own_offer": True,
            "dialling_mode": "predictive" if self.chance(0.15) else "manual",
            "cli": {"number": "+31201234567", "withheld": False},
            "person_ref": self.pick("p-1", "p-1", None),
            **fields,
        }
        return self.request

    def covering(self) -> str:
        """A subject that covers the request's."""
        subject = self.request.get("subject") or "energy"
        return self.pick(subject, subject, subject.split("/")[0])

    def add(self, topic: str, at: datetime, fields: Value) -> Value:
        """Put a fact on file."""
        value = {"event_id": next(self._event_ids), "number": self.number, "at": utc_text(at), **fields}
        self.facts.append((topic, value))
        return value

    def some(self, topic: str) -> Value | None:
        """One of the facts of a topic, None if there is none."""
        found = [value for name, value in self.facts if name == topic and value.get("kind") != "withdrawn"]
        return self.pick(*found) if found else None

    def consent(self, parties: list[str] | None = None, at: datetime | None = None, **fields: Any) -> Value:
        """A consent with all that it needs."""
        at = at or self.ago(days=self.rng.randint(1, 150), seconds=self.rng.randint(0, 9999))
        good = {
            "kind": "given",
            "party_ids": parties or [self.responsible],
            "subjects": [self.covering()],
            "channels": ["telephone"],
            "capture": self.pick(*CAPTURES[:3]),
            "evidence": {"uri": "https://example.org/c/1", "sha256": SHA},
            "person_ref": "p-1",
            "verified_by": self.pick(*MODES),
        }
        return self.add("consents", at, good | fields)

    def withdrawal(self, at: datetime, *parties: str) -> Value:
        """A withdrawal from some parties, or from everyone."""
        return self.add("consents", at, {"kind": "withdrawn", "party_ids": self.pick(list(parties), list(parties) or None)})

    def relationship(self, advertiser: str | None = None, **fields: Any) -> Value:
        """A sale with all that it needs."""
        start = self.day - timedelta(self.rng.randint(60, 1500))
        end = self.pick(None, None, max(start, self.day - timedelta(self.rng.randint(1, 900))))
        good = {
            "relationship_id": f"r-{self.rng.randint(1, 3)}-{advertiser or self.responsible}",
            "advertiser_id": advertiser or self.responsible,
            "kind": self.pick(*SALES[:3]),
            "paid": True,
            "number_given_in_sale": True,
            "started_on": start.isoformat(),
            "ended_on": end and end.isoformat(),
            "collected_on": start.isoformat(),
            "informed": True,
            "optout_offered": self.pick(*OPTOUTS[:4]),
            "optout_used": False,
            "subjects": [self.covering()],
            "rationale": None,
        }
        return self.add("relationships", datetime(start.year, start.month, start.day, 12, tzinfo=UTC), good | fields)

    def invitation(self, at: datetime | None = None, **fields: Any) -> Value:
        """An invitation with all that it needs."""
        at = at or self.ago(days=self.rng.randint(0, 28), seconds=self.rng.randint(1, 80_000))
        good = {
            "party_id": self.responsible,
            "subject": self.covering(),
            "origin": "own_initiative",
            "capture": self.pick(*CAPTURES[:3]),
        }
        return self.add("invitations", at, good | fields)

    def objection(self, at: datetime | None = None, **fields: Any) -> Value:
        """An objection; against everyone unless it names somebody."""
        at = at or self.ago(days=self.rng.randint(0, 300), seconds=self.rng.randint(1, 9999))
        return self.add("objections", at, fields)

    def outcome(self, at: datetime, result: str, **fields: Any) -> Value:
        """How an earlier call of the same parties ended."""
        made = {"advertiser_id": self.advertiser, "campaign_id": self.pick("c-1", "c-2"), "result": result}
        if self.intermediary:
            made["intermediary_id"] = self.intermediary
        return self.add("call-outcomes", at, made | fields)

    def callee(self, at: datetime | None = None, **fields: Any) -> Value:
        """Who uses the number."""
        good = {"legal_form": "natural_person", "person_ref": "p-1", "age": 45, "country": "NL"}
        return self.add("callees", at or datetime(2009, 1, 5, tzinfo=UTC) + timedelta(self.rng.randint(0, 100)), good | fields)


# --- what can be wrong with facts and requests, at the offline door and on the stream alike ------------------------------------------

Fault = Callable[[Scene], Any]


def _months_ago(scene: Scene, *months: int) -> date:
    """A day that lies some months before the call, or a day beside it."""
    return months_on(scene.day, -scene.pick(*months)) + timedelta(scene.pick(-2, -1, 0, 0, 1))


def _first_contact_border(scene: Scene, consent: Value) -> None:
    months = scene.pick(6, 6, 6, 1, 3, 12)
    given_on = months_on(scene.day, -months) + timedelta(scene.pick(-3, -2, -1, 0, 1))
    consent["at"] = utc_text(wall(given_on, scene.pick(0, 12, 23), 30))
    if months != 6 or scene.chance(0.3):
        consent["first_contact_within_months"] = months
    if scene.chance(0.4):
        contact_on = months_on(given_on, months) + timedelta(scene.pick(-1, 0, 0, 1))
        scene.outcome(wall(contact_on, scene.pick(0, 12, 23), 45), scene.pick(*RESULTS))


def _old_with_contact(scene: Scene, consent: Value) -> None:
    consent["at"] = utc_text(scene.ago(days=scene.rng.randint(300, 900)))
    scene.outcome(scene.ago(days=scene.rng.randint(61, 900)), scene.pick("connected", "connected", "not_interested", "abandoned"))


_CONSENT_FAULTS: tuple[Callable[[Scene, Value], Any], ...] = (
    lambda s, c: c.update(capture=s.pick(*BAD_CAPTURES), verified_by=s.pick(None, "sms")),
    lambda s, c: c.update(capture=s.pick(*BAD_CAPTURES)),
    lambda s, c: c.update(channels=s.sample(CHANNELS, 3)),
    lambda s, c: c.update(subjects=s.sample(SUBJECTS, 2, 0)),
    lambda s, c: c.update(party_ids=s.sample((s.advertiser, s.responsible, *s.others), 3)),
    lambda s, c: c.update(evidence=s.pick(None, {"uri": "https://x/1"}, {"sha256": SHA}, {}, {"uri": None, "sha256": None})),
    lambda s, c: c.update(person_ref=s.pick(None, "p-2")),
    lambda s, c: c.update(verified_by=None),
    lambda s, c: c.pop(s.pick("evidence", "person_ref", "verified_by"), None),
    lambda s, c: c.update(valid_until=s.days_on(-1, 0, 0, 1, -40)),
    lambda s, c: c.update(giver_age=s.pick(14, 15, 16, 40)),
    lambda s, c: c.update(at=utc_text(s.near(-1, 0, 1, 5, 86_400))),
    _first_contact_border,
    _first_contact_border,
    _old_with_contact,
    lambda s, c: c.update(first_contact_within_months=s.pick(0, 1, 3, 6, 12, 24)),
)


def spoil_consent(scene: Scene) -> None:
    """Something is wrong with a consent, or just right."""
    scene.pick(*_CONSENT_FAULTS)(scene, scene.some("consents") or scene.consent())


def more_consents(scene: Scene) -> None:
    """Several consents for several parties."""
    for _ in range(scene.rng.randint(1, 3)):
        named = scene.pick(None, None, [scene.advertiser], scene.others[:1], [scene.advertiser, scene.responsible], scene.others[1:2])
        scene.consent(named, scene.ago(days=scene.rng.randint(0, 200), seconds=scene.pick(1, 500)))
        if scene.chance(0.6):
            spoil_consent(scene)


def _around_a_fact(scene: Scene, *topics: str) -> datetime:
    """An instant at, before or after the call or one of its facts."""
    at = scene.near(-5, 0, 5, -86_400 * 30, -86_400 * 200, 86_400)
    fact = scene.some(scene.pick(*topics))
    if fact is not None and scene.chance(0.6):
        at = read_text(fact["at"]) + timedelta(seconds=scene.pick(-1, 0, 1, -86_400, 86_400))
    return at


def withdraw(scene: Scene) -> None:
    """A withdrawal, perhaps with a new consent after it."""
    parties = scene.pick((), (scene.advertiser,), (scene.responsible,), scene.others[:1], (scene.advertiser, scene.others[1]))
    scene.withdrawal(_around_a_fact(scene, "consents"), *parties)
    if scene.chance(0.25):
        scene.consent(at=scene.ago(days=scene.rng.randint(0, 40)))


def object_to(scene: Scene) -> None:
    """An objection, perhaps with a new consent after it."""
    named: Value = {}
    named["advertiser_id"] = scene.pick(scene.advertiser, scene.advertiser, scene.advertiser, *scene.others[:2], None)
    named["intermediary_id"] = scene.pick(scene.intermediary, None)
    named["call_centre_id"] = scene.pick(scene.others[2], "Y", None, None)
    if scene.chance(0.4):
        named["scope"] = scene.pick("called_for", "whole_call_centre")
    if scene.chance(0.3):
        named["subject"] = scene.pick(*SUBJECTS, scene.request.get("subject"))
    if scene.chance(0.4):
        named["channel"] = scene.pick("call", "ivr", "web", "email", "letter", "other")
    scene.objection(_around_a_fact(scene, "consents", "invitations"), **named)
    if scene.chance(0.3):
        parties = scene.pick([scene.responsible], sorted({scene.responsible, scene.advertiser}), [scene.advertiser])
        scene.consent(parties, scene.ago(days=scene.rng.randint(0, 30)))


def _next_version(scene: Scene, relationship: Value) -> None:
    other = {
        "paid": scene.pick(True, False, None),
        "informed": scene.pick(True, False, None),
        "optout_offered": scene.pick(*OPTOUTS),
        "optout_used": scene.pick(False, True, None),
        "number_given_in_sale": scene.pick(True, False),
        "ended_on": scene.pick(None, scene.days_on(0), scene.days_on(-1300)),
        "subjects": scene.pick(["energy"], ["energy/solar"], ["insurance"]),
        "collected_on": scene.pick("2021-06-30", "2022-01-01", None),
    }
    changes = {name: value for name, value in other.items() if scene.chance(0.3)}
    at = read_text(relationship["at"]) + timedelta(seconds=scene.pick(-3600, 0, 0, 0, 3600))
    kept = {name: value for name, value in relationship.items() if name not in ("event_id", "at", "number")}
    scene.add("relationships", at, kept | changes)


_OPTIONAL_OF_RELATIONSHIP = (
    *("paid", "number_given_in_sale", "informed", "optout_offered", "collected_on", "subjects", "rationale", "ended_on"),
)
_RELATIONSHIP_FAULTS: tuple[Callable[[Scene, Value], Any], ...] = (
    lambda s, r: r.update(kind=s.pick(*KINDS)),
    lambda s, r: r.update(paid=s.pick(False, None)),
    lambda s, r: r.update(number_given_in_sale=s.pick(False, None)),
    lambda s, r: r.update(informed=s.pick(False, None)),
    lambda s, r: r.update(optout_offered=s.pick(*OPTOUTS)),
    lambda s, r: r.update(optout_offered=s.pick(*OPTOUTS[4:]), collected_on=s.pick("2021-06-30", "2021-07-01", None, "2015-01-01")),
    lambda s, r: r.update(optout_used=True),
    lambda s, r: r.update(subjects=s.pick(None, [], ["insurance"], ["energyx"], ["energy/solar"], ["energy"])),
    lambda s, r: r.update(advertiser_id=s.pick(*s.others, s.advertiser)),
    lambda s, r: r.update(advertiser_id=s.others[0]),
    lambda s, r: r.update(kind="event_attendance", rationale=s.pick(None, "ran the charity race")),
    lambda s, r: r.update(started_on=s.days_on(-1, 0, 1, 2)),
    lambda s, r: r.update(ended_on=s.pick(None, s.days_on(-1, 0, 1, 30))),
    lambda s, r: r.update(started_on="2008-01-01", ended_on=_months_ago(s, 36, 36, 12, 18, 48, 60).isoformat()),
    lambda s, r: r.update(started_on="2008-01-01", ended_on=_months_ago(s, 36, 36, 12, 18, 48, 60).isoformat()),
    _next_version,
    _next_version,
    lambda s, r: r.pop(s.pick(*_OPTIONAL_OF_RELATIONSHIP), None),
    lambda s, r: s.request.update(own_offer=s.pick(False, None)),
    lambda s, r: s.relationship(
        s.pick(s.advertiser, s.others[0]), kind=s.pick(*KINDS), relationship_id="r-9", paid=s.pick(True, False)
    ),
)


def spoil_relationship(scene: Scene) -> None:
    """Something is wrong with a relationship, or just right."""
    found = scene.some("relationships") or scene.relationship(scene.pick(scene.advertiser, scene.advertiser, scene.others[0]))
    scene.pick(*_RELATIONSHIP_FAULTS)(scene, found)


_INVITATION_FAULTS: tuple[Callable[[Scene, Value], Any], ...] = (
    lambda s, i: i.update(origin=s.pick("survey", "prize_draw")),
    lambda s, i: i.update(capture=s.pick("preticked_box", "terms")),
    lambda s, i: i.update(party_id=s.pick(None, s.advertiser, *s.others)),
    lambda s, i: i.update(subject=s.pick(*SUBJECTS)),
    lambda s, i: i.update(at=utc_text(s.ago(days=30, seconds=s.pick(-1, 0, 1, 86_400)))),
    lambda s, i: i.update(at=utc_text(s.near(-1, 0, 1))),
    lambda s, i: i.update(agreed_at=utc_text(s.near(1, 0, -1, -899, -900, -901))),
    lambda s, i: s.outcome(s.ago(seconds=s.pick(100, 86_400, 86_400 * 2, 86_400 * 29)), s.pick(*RESULTS)),
    lambda s, i: s.invitation(
        origin=s.pick("own_initiative", "survey"), party_id=s.pick(s.responsible, None), subject=s.pick(*SUBJECTS)
    ),
)


def spoil_invitation(scene: Scene) -> None:
    """Something is wrong with an invitation, or just right."""
    scene.pick(*_INVITATION_FAULTS)(scene, scene.some("invitations") or scene.invitation())


def earlier_calls(scene: Scene) -> None:
    """Outcomes of earlier calls, at and beside the ends of the operator's windows."""
    for _ in range(scene.pick(1, 1, 2, 3, 3, 4)):
        age = scene.pick(1, 3600, 86_400, 72 * 3600, 30 * 86_400, 60 * 86_400) + scene.pick(-1, 0, 1, 7200)
        if scene.chance(0.4):
            age = scene.rng.randint(86_400 * 4, 86_400 * 31)
        of_others = scene.pick({}, {}, {}, {"advertiser_id": scene.others[0]}, {"advertiser_id": scene.others[1]})
        scene.outcome(scene.ago(seconds=age), scene.pick(*RESULTS, "no_answer", "busy"), **of_others)


def three_unanswered(scene: Scene) -> None:
    """Three calls that nobody answered, the first of them about 30 days ago."""
    for days in scene.rng.sample(range(4, 29), 2):
        scene.outcome(scene.ago(days=days), scene.pick("no_answer", "busy", "abandoned", "silent"))
    scene.outcome(scene.ago(days=30, seconds=scene.pick(-1, 0, 1)), scene.pick("no_answer", "busy"))


def edge_of_a_window(scene: Scene) -> None:
    """One outcome exactly where a window ends, or a second beside it."""
    beside = scene.pick(-1, 0, 0, 1)
    made = scene.pick(
        (timedelta(days=60, seconds=beside), "not_interested"),
        (timedelta(hours=72, seconds=beside), scene.pick("silent", "abandoned")),
        (timedelta(seconds=beside), scene.pick(*RESULTS)),
        (scene.at - wall(scene.day, 0) + timedelta(seconds=beside), scene.pick(*RESULTS)),
    )
    scene.outcome(scene.at - made[0], made[1])


def _next_callee(scene: Scene, callee: Value) -> None:
    tied = scene.chance(0.5)
    other = {
        "age": scene.pick(15, 30, None),
        "age_suspected_minor": scene.pick(True, False, None),
        "deceased": scene.pick(True, False, None),
        "person_ref": scene.pick("p-1", "p-2"),
        "country": scene.pick("NL", "CH"),
        "local_rules_met": scene.pick(True, False),
        "legal_form": scene.pick(*FORMS),
    }
    changes = {name: value for name, value in other.items() if scene.chance(0.3)}
    at = read_text(callee["at"]) + timedelta(seconds=0 if tied else scene.pick(-3600, 3600, 10**9))
    kept = {name: value for name, value in callee.items() if name not in ("event_id", "at", "number")}
    scene.add("callees", at, kept | changes)


def _published(scene: Scene) -> Value | None:
    at = scene.near(-1, 0, 1, -9999)
    return scene.pick(None, {"uri": "https://x/c", "at": utc_text(at), "subjects": scene.sample(SUBJECTS, 2)})


_CALLEE_FAULTS: tuple[Callable[[Scene, Value], Any], ...] = (
    lambda s, c: c.update(legal_form=s.pick(*FORMS)),
    lambda s, c: c.update(legal_form=s.pick(None, "unknown")),
    lambda s, c: c.update(age=s.pick(15, 16, 17, None)),
    lambda s, c: c.update(age_suspected_minor=s.pick(True, False, None)),
    lambda s, c: c.update(deceased=True),
    lambda s, c: c.update(person_ref=s.pick("p-2", None)),
    lambda s, c: c.update(country=s.pick("CH", "NO", "DE", "GB", None), local_rules_met=s.pick(True, True, False, None)),
    lambda s, c: c.update(legal_form=s.pick(*FORMS[:6]), published_for_marketing=_published(s)),
    lambda s, c: c.update(do_not_call_registered_on=s.days_on(-500, -1, 0, 1)),
    lambda s, c: c.pop(s.pick("legal_form", "person_ref", "age", "country"), None),
    _next_callee,
    _next_callee,
)


def spoil_callee(scene: Scene) -> None:
    """Something is odd about who uses the number."""
    scene.pick(*_CALLEE_FAULTS)(scene, scene.some("callees") or scene.callee())


_REQUEST_FAULTS: tuple[Fault, ...] = (
    lambda s: s.request.update(subject=s.pick(*SUBJECTS)),
    lambda s: s.request.update(subject=None),
    lambda s: s.request.update(own_offer=s.pick(False, None)),
    lambda s: s.request.update(dialling_mode="automated_voice"),
    lambda s: s.request.update(person_ref=s.pick("p-2", None)),
    lambda s: s.request.update(purpose=s.pick("commercial", "ideal", "charitable")),
    lambda s: s.request.update(purpose="research", promotion=s.pick("none", "incidental", "material", None)),
    lambda s: s.request.update(advertiser_id=s.others[0]),
    lambda s: s.request.update(call_centre_id=s.pick(s.others[2], "Y", None)),
    lambda s: s.request.update(cli={"number": s.pick(None, "+31201234567", "+31209999999"), "withheld": True}),
    lambda s: s.request.update(cli={"number": s.pick(None, "+31209999999"), "withheld": False}),
)


def spoil_request(scene: Scene) -> None:
    """The request itself asks for something else."""
    scene.pick(*_REQUEST_FAULTS)(scene)


def claim_service(scene: Scene) -> None:
    """The request claims to be a service call, rightly or not."""
    promotion = scene.pick("none", "incidental", "incidental", "material", "dominant", None)
    scene.request.update(purpose="service", promotion=promotion, service_necessary=scene.pick(True, True, True, False, None))


FACT_FAULTS: tuple[tuple[Fault, int], ...] = (
    *((spoil_consent, 14), (more_consents, 4), (withdraw, 4), (object_to, 7), (spoil_relationship, 13), (spoil_invitation, 7)),
    *((earlier_calls, 5), (three_unanswered, 2), (edge_of_a_window, 5), (spoil_callee, 8), (spoil_request, 6), (claim_service, 3)),
)
#: What is worth spoiling in a scene of each kind, because the call leans on it.
TELLING_FAULTS: dict[str, tuple[Fault, ...]] = {
    "consent": (spoil_consent,),
    "intermediary": (spoil_consent, spoil_consent, withdraw),
    "automated": (spoil_consent,),
    "revived": (spoil_consent, object_to, withdraw),
    "sale": (spoil_relationship,),
    "charity": (spoil_relationship,),
    "publisher": (spoil_relationship,),
    "lottery": (spoil_relationship,),
    "solicited": (spoil_invitation, spoil_invitation, object_to),
    "service": (claim_service, object_to),
    "research": (spoil_request,),
    "legal person": (spoil_callee, object_to),
    "published": (spoil_callee,),
    "outside the EEA": (spoil_callee,),
    "opt-out": (spoil_callee, spoil_relationship),
    "own customer": (spoil_relationship,),
    "cold": (more_consents, spoil_invitation, spoil_relationship),
}


def set_up(scene: Scene, kind: str) -> None:
    """Put on file what a call of a kind leans on."""
    if kind in ("consent", "intermediary", "automated"):
        scene.consent()
    elif kind == "sale":
        scene.relationship(kind=scene.pick(*SALES))
    elif kind == "own customer":
        scene.relationship(kind=scene.pick(*SALES, "donation"))
    elif kind in ("publisher", "lottery"):
        scene.relationship(kind="subscription" if kind == "publisher" else "lottery_participation")
    elif kind == "charity":
        link = scene.pick(*LINKS)
        rationale = "walked in the march" if link == "event_attendance" else None
        scene.relationship(
            kind=link, paid=scene.pick(True, False, None), rationale=rationale, subjects=scene.pick(["donation"], [], None)
        )
    elif kind == "solicited":
        invitation = scene.invitation()
        if scene.chance(0.35):
            invitation["agreed_at"] = utc_text(scene.near(0, -1, -300, -899, -900, -901, 1, -86_400))
    elif kind == "revived":
        _revive(scene)


def _revive(scene: Scene) -> None:
    given = scene.ago(days=scene.rng.randint(1, 120))
    scene.consent(sorted({scene.responsible, scene.advertiser}), given)
    before = given - timedelta(seconds=scene.pick(1, 1, 0, 3600, 86_400 * 70))
    scene.pick(
        lambda: scene.objection(before, advertiser_id=scene.advertiser, intermediary_id=scene.intermediary),
        lambda: scene.objection(before),
        lambda: scene.withdrawal(before, *scene.pick((), (scene.responsible,))),
        lambda: scene.outcome(before, "objected"),
        lambda: scene.objection(before, call_centre_id=scene.centre, scope=scene.pick("whole_call_centre", "called_for")),
    )()


# --- lines for the offline door ------------------------------------------------------------------------------------------------

_OFFLINE_KINDS = {
    "consent": 18,
    "sale": 13,
    "charity": 9,
    "publisher": 5,
    "lottery": 5,
    "solicited": 9,
    "service": 6,
    "research": 3,
    "legal person": 5,
    "published": 3,
    "outside the EEA": 3,
    "opt-out": 10,
    "own customer": 6,
    "intermediary": 7,
    "automated": 5,
    "revived": 7,
    "cold": 4,
}
_REGIMES_OF = {
    "sale": ("R2",),
    "publisher": ("R3",),
    "lottery": ("R3",),
    "opt-out": ("R1",),
    "own customer": ("R1",),
} | dict.fromkeys(
    ("legal person", "research", "service", "automated", "solicited", "revived", "intermediary"), ("R1", "R2", "R2", "R3")
)
_ODD_HOURS = (
    *((0, 0, 0), (0, 30, 0), (7, 59, 59), (8, 0, 0), (8, 59, 59), (9, 0, 0), (9, 59, 59), (10, 0, 0), (15, 59, 59), (16, 0, 0)),
    *((18, 29, 59), (18, 30, 0), (20, 59, 59), (21, 0, 0), (21, 59, 59), (22, 0, 0), (23, 59, 59)),
)


def offline_lines(seed: int, count: int) -> Iterator[Value]:
    """Lines for the offline door over all three regimes and every border of dates."""
    for position in range(count):
        yield offline_line(seed, position)


def offline_line(seed: int, position: int) -> Value:
    """One line: everything but a valid record may be wrong with it."""
    rng = random.Random(seed * 1_000_003 + position)
    kind = rng.choices(list(_OFFLINE_KINDS), list(_OFFLINE_KINDS.values()))[0]
    scene = _OfflineScene(rng, kind)
    for _ in range(rng.choices((0, 1, 2, 3, 6), (8, 32, 33, 20, 7))[0]):
        if rng.random() < 0.55:
            scene.pick(*TELLING_FAULTS[kind])(scene)
        else:
            rng.choices(_OFFLINE_FAULTS, _OFFLINE_WEIGHTS)[0](scene)
    return {"case": f"{position}: {kind}", "facts": scene.line_facts(), "request": scene.request}


class _OfflineScene(Scene):
    """A scene with parties, a campaign and a caller number of its own."""

    def __init__(self, rng: random.Random, kind: str) -> None:
        regimes = _REGIMES_OF.get(kind, ("R2", "R3"))
        number = "+31612345678"
        if kind == "outside the EEA" or rng.random() < 0.05:
            number = rng.choice(("+41791234567", "+447911123456", "+3224567890", number))
        event_ids = (f"e-{serial}" for serial in itertools.count(1))
        super().__init__(rng, _offline_instant(rng, *REGIMES[rng.choice(regimes)]), number, event_ids)
        self.repeated: list[Fact] = []
        self.removed: list[tuple[str, str]] = []
        if kind == "intermediary" or (kind in ("automated", "solicited", "revived", "legal person") and self.chance(0.15)):
            self.intermediary = "I"
        self.centre = self.pick(None, None, None, "X")
        self.parties = self._parties(kind)
        self.campaign = {"campaign_id": "c-1", "advertiser_id": "A", "objection_offered": True}
        self.campaign["abandoned_share_24h"] = self.pick(0, 0.01, 0.03)
        self.caller = {
            "number": "+31201234567",
            "owner_id": self.pick(self.responsible, self.responsible, self.centre or self.responsible),
            "callable_back": True,
            "tariff": self.pick("normal", "normal", "free"),
            "published_by": [self.responsible],
        }
        self._ask(kind)
        if self.chance(0.96):
            self.callee(**self._callee_fields(kind))
        set_up(self, kind)

    def _parties(self, kind: str) -> dict[str, Value]:
        kinds = {"charity": ["ideal_or_charitable"], "publisher": ["periodical_publisher"], "lottery": ["lottery_licensee"]}.get(
            kind, []
        )
        member, brand = self.chance(0.3), self.pick(None, None, "a-brand")
        test = {"dated": self.pick("2017-01-16", "2018-05-24", "2019-12-31"), "term_months": self.pick(36, 36, 60, 48, 12)}
        parties = [party("A", kinds=kinds, brand=brand, ddma_member=member, balance_tests=[test])]
        if kind == "publisher":
            parties[0]["issues_per_year"] = self.pick(3, 4, 12, 300)
        if kind == "lottery":
            parties[0]["wok_article"] = self.pick("3", "9", "27b")
        if self.intermediary:
            parties.append(party("I", brand=self.pick(None, None, "a-brand", "i-brand"), ddma_member=self.chance(0.5)))
        if self.chance(0.5):
            parties.append(party("S", brand=self.pick("a-brand", "a-brand", "i-brand", None)))
        if self.chance(0.5):
            parties.append(party("B", brand=self.pick(None, "b-brand")))
        if self.centre:
            parties.append(party("X", brand=self.pick(None, None, "a-brand")))
        return {one["party_id"]: one for one in parties}

    def _ask(self, kind: str) -> None:
        request = self.ask()
        if kind == "charity":
            request.update(purpose=self.pick("charitable", "ideal"), subject=self.pick("donation", "energy"))
        elif kind in ("service", "research"):
            promotion = self.pick("none", "none", "incidental") if kind == "service" else "none"
            request.update(purpose=kind, promotion=promotion, service_necessary=True, subject=self.pick(None, "energy"))
        elif kind == "automated":
            request["dialling_mode"] = "automated_voice"
        if self.day < date(2021, 7, 1):
            request["scrubbed_on"] = self.days_on(0, -1, -5, -27, -28)

    def _callee_fields(self, kind: str) -> Value:
        form = "natural_person" if self.chance(0.85) else self.pick(*FORMS[:5], "unknown", None)
        fields: Value = {"legal_form": form}
        if kind == "legal person":
            fields["legal_form"] = self.pick(*LEGAL)
        elif kind in ("published", "outside the EEA"):
            fields["legal_form"] = self.pick(*BUSINESS)
        if kind == "published":
            at = utc_text(self.ago(days=20))
            fields["published_for_marketing"] = {"uri": "https://example.org/contact", "at": at, "subjects": [self.covering()]}
        elif kind == "outside the EEA":
            fields |= {"country": self.pick("CH", "GB", "US"), "local_rules_met": True}
        elif kind == "own customer":
            fields["do_not_call_registered_on"] = self.days_on(0, -1, -700, -2000)
        return fields

    def move_to(self, at: datetime) -> None:
        """Call at another instant; the facts stay."""
        self.at, self.day = at, at.astimezone(AMSTERDAM).date()
        self.request["dial_at"] = utc_text(at)

    def line_facts(self) -> list[Value]:
        """All facts of the line: references first, mostly, then the number's own in an order of chance."""
        references = [("parties", one) for one in self.parties.values()]
        references += [("campaigns", self.campaign), ("caller-numbers", self.caller)]
        facts = list(self.facts)
        if self.chance(0.3):
            self.rng.shuffle(facts)
        facts = references + facts if self.chance(0.8) else facts + references
        tombstones = [{"topic": topic, "key": key, "value": None} for topic, key in self.removed]
        return [{"topic": topic, "value": value} for topic, value in facts + self.repeated] + tombstones


def _offline_instant(rng: random.Random, first: date, last: date) -> datetime:
    draw = rng.random()
    if draw < 0.35:
        day = rng.choice(BORDERS) + timedelta(rng.choice((-2, -1, -1, 0, 0, 0, 1, 2, 3)))
    elif draw < 0.45:
        day = rng.choice(special_days(rng.randint(first.year, last.year))) + timedelta(rng.choice((0, 0, 0, -1, 1)))
    else:
        day = first + timedelta(rng.randrange((last - first).days + 1))
    if not first <= day <= last:
        day = rng.choice((first, last))
    if day.weekday() == 6 and rng.random() < 0.85 and day not in BORDERS:
        day += timedelta(1 if day < last else -1)
    if rng.random() < 0.82:
        return wall(day, rng.randint(10, 15), rng.randint(0, 59), rng.choice((0, 0, 30, 59)))
    return wall(day, *rng.choice(_ODD_HOURS))


def _spoil_party(scene: _OfflineScene) -> None:
    one = scene.parties[scene.pick("A", scene.responsible)]
    test = {"dated": scene.days_on(-2, -1, 0, 1), "term_months": scene.pick(36, 6)}
    later = {"dated": scene.days_on(0, -1, -2, -100), "term_months": scene.pick(1, 6, 12, 36)}
    advice = {"advised_on": scene.days_on(0, -1, -30), "months": scene.pick(None, 60, 12)}
    change: Value = scene.pick(
        {"balance_tests": scene.pick([], None)},
        {"balance_tests": [test]},
        {"balance_tests": [*(one["balance_tests"] or ()), later]},
        {"term_extensions": [advice]},
        {"kinds": scene.pick([], None, ["ideal_or_charitable"], ["periodical_publisher"], ["lottery_licensee"])},
        {"kinds": ["periodical_publisher", scene.pick("lottery_licensee", "ideal_or_charitable")]},
        {"issues_per_year": scene.pick(None, 0, 2, 3)},
        {"wok_article": scene.pick(None, "31a", "30b", "3", "27b", "27")},
        {"ddma_member": scene.pick(True, False, None)},
    )
    one.update(change)


def _sister(scene: _OfflineScene) -> None:
    """A party of the same brand has what this call lacks, or was told not to call."""
    scene.parties["A"]["brand"] = "a-brand"
    scene.parties["S"] = party("S", brand="a-brand")
    if scene.chance(0.5):
        scene.facts = [fact for fact in scene.facts if fact[0] not in ("consents", "relationships")]
    scene.pick(
        lambda: scene.relationship("S"),
        lambda: scene.objection(advertiser_id="S"),
        lambda: scene.consent(["S"]),
        lambda: scene.withdrawal(scene.ago(days=3), "S"),
    )()


def _exempt(scene: _OfflineScene) -> None:
    """An exempt party, or one that fails its exemption, with all kinds of relationships."""
    kinds = scene.pick(["periodical_publisher"], ["lottery_licensee"], ["ideal_or_charitable"])
    scene.parties["A"].update(
        kinds=kinds, issues_per_year=scene.pick(None, 2, 2, 3, 12), wok_article=scene.pick("31a", "30", "3", "9", None)
    )
    for serial in range(scene.rng.randint(1, 2)):
        rationale = scene.pick(None, "why")
        scene.relationship(scene.pick("A", "A", "A", "S"), kind=scene.pick(*KINDS), relationship_id=f"r-x{serial}", rationale=rationale)


_CALLER_FAULTS: tuple[Callable[[_OfflineScene], Any], ...] = (
    lambda s: s.caller.update(owner_id=s.pick("Z", "A", "I", "X", None)),
    lambda s: s.caller.update(callable_back=s.pick(False, None)),
    lambda s: s.caller.update(tariff=s.pick("premium", "premium", None, "free")),
    lambda s: s.caller.update(published_by=s.pick([], None, ["S"], ["A"], ["I", "X"])),
    lambda s: s.caller.update(in_use_until=(months_on(s.day, 6) + timedelta(s.pick(-1, -1, 0, 1, -200))).isoformat()),
    lambda s: s.campaign.update(objection_offered=s.pick(False, None)),
    lambda s: (s.campaign.update(abandoned_share_24h=s.pick(None, 0.03, 0.0301, 1)), s.request.update(dialling_mode="predictive")),
    lambda s: s.request.update(scrubbed_on=s.pick(None, s.days_on(0, 1, -27, -28, -29))),
    lambda s: s.request.update(intermediary_id=s.pick("I", None)),
)


def _spoil_caller(scene: _OfflineScene) -> None:
    scene.pick(*_CALLER_FAULTS)(scene)


def _other_day(scene: _OfflineScene) -> None:
    scene.move_to(_offline_instant(scene.rng, date(2009, 10, 1), date(2028, 12, 31)))


def _other_hour(scene: _OfflineScene) -> None:
    scene.move_to(wall(scene.day, *scene.pick(*_ODD_HOURS)))


def _special_day(scene: _OfflineScene) -> None:
    day = scene.pick(*special_days(scene.day.year), date(2024, 5, 4), date(2025, 5, 4), date(2024, 12, 24))
    scene.move_to(wall(day, *scene.pick((11, 0, 0), (14, 0, 0), *_ODD_HOURS)))


def _remove_reference(scene: _OfflineScene) -> None:
    entries = (("parties", "A"), ("parties", "I"), ("parties", "S"), ("campaigns", "c-1"), ("campaigns", "c-2"))
    scene.removed.append(scene.pick(*entries, ("caller-numbers", "+31201234567"), ("caller-numbers", "+31200000000")))


_OTHER_CONTENT: dict[str, Value] = {
    "consents": {"capture": "preticked_box", "party_ids": ["B"]},
    "relationships": {"optout_used": True, "paid": False},
    "objections": {"advertiser_id": "B"},
    "invitations": {"origin": "survey"},
    "callees": {"at": "2030-01-01T00:00:00Z", "age": 10},
    "call-outcomes": {"result": "objected"},
}


def _repeat_event_id(scene: _OfflineScene) -> None:
    """An event_id comes again with other content: the first counts."""
    if scene.facts:
        topic, value = scene.pick(*scene.facts)
        scene.repeated.append((topic, value | _OTHER_CONTENT[topic]))


def _other_number(scene: _OfflineScene) -> None:
    """Facts about another number, which are none of this call's business."""
    scene.number, number = "+31687654321", scene.number
    scene.pick(object_to, withdraw, earlier_calls, more_consents)(scene)
    scene.number = number


_CAST_FAULTS: tuple[tuple[Callable[[_OfflineScene], Any], int], ...] = (
    *((_spoil_party, 6), (_sister, 3), (_exempt, 4), (_spoil_caller, 9), (_other_day, 3), (_other_hour, 5), (_special_day, 4)),
    *((_remove_reference, 2), (_repeat_event_id, 2), (_other_number, 2)),
)
_OFFLINE_FAULTS: list[Callable[[Any], Any]] = [fault for fault, _ in (*FACT_FAULTS, *_CAST_FAULTS)]
_OFFLINE_WEIGHTS = [weight for _, weight in (*FACT_FAULTS, *_CAST_FAULTS)]


# --- a town of numbers for today's stream -------------------------------------------------------------------------------------------

#: The clock of the stream: a Monday, 14:00 in Amsterdam.
TODAY = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)

_STREAM_KINDS = {
    "consent": 26,
    "intermediary": 9,
    "charity": 13,
    "publisher": 8,
    "lottery": 6,
    "sale": 4,
    "solicited": 11,
    "service": 7,
    "research": 3,
    "automated": 3,
    "revived": 6,
    "cold": 4,
}
_STREAM_NAMES = list(_STREAM_KINDS)
_STREAM_BOUNDS = list(itertools.accumulate(_STREAM_KINDS.values()))
_STREAM_FAULTS = [fault for fault, _ in FACT_FAULTS]
_STREAM_FAULT_BOUNDS = list(itertools.accumulate(weight for _, weight in FACT_FAULTS))
#: Instants that the clock of the stream makes too far or too old, on days and at hours when nobody calls.
_ELSEWHEN = (
    *("2026-11-29T13:00:00Z", "2026-12-25T13:00:00Z", "2026-12-24T18:30:00Z", "2026-11-23T22:30:00Z", "2026-12-26T15:30:00Z"),
    *("2026-11-23T12:57:59Z", "2026-11-22T13:00:00Z", "2026-11-23T13:15:01Z", "2026-11-28T09:30:00+01:00"),
)


@dataclass
class Resident:
    """A number with the facts about it and the requests for it.

    ``broken`` are records of the topics of objections and consents that cannot be read, which suspend the number; ``released`` says
    that an operator's release comes after them.
    """

    number: str
    facts: list[Fact]
    requests: list[Value]
    broken: list[tuple[str, bytes]]
    releases: list[Value]


class Town:
    """Advertisers, charities, publishers, lotteries, intermediaries and call centres, and the numbers that they want to call.

    A resident is a function of seed and position; the parties are a function of nothing.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.references: list[Fact] = []
        self._by_kind: dict[str, list[str]] = {}
        self._sisters: dict[str, str] = {}
        self._order: dict[str, int] = {}
        self._centres = [f"centre-{serial}" for serial in range(3)]
        test, short = {"dated": "2026-01-05", "term_months": 36}, {"dated": "2026-01-05", "term_months": 12}
        advice = {"advised_on": "2026-02-02", "months": 60}
        for serial in range(12):
            brand = f"brand-{serial // 2}" if serial < 6 else None
            self._settle("consent", f"trade-{serial}", brand=brand, ddma_member=serial % 3 == 0, balance_tests=[test])
        for serial in range(8):
            tests = [[test], [test], [short], [test, short], [], [test], [test], [test]][serial]
            extensions = [advice] if serial == 5 else [{"advised_on": "2026-02-02"}] if serial == 6 else []
            fields = {"kinds": ["ideal_or_charitable"], "balance_tests": tests, "term_extensions": extensions}
            self._settle("charity", f"charity-{serial}", legal_form="foundation", brand="charities" if serial < 2 else None, **fields)
        for serial in range(6):
            fields = {"kinds": ["periodical_publisher"], "issues_per_year": (52, 12, 3, 6, 2, None)[serial], "balance_tests": [test]}
            self._settle("publisher", f"press-{serial}", brand="press" if serial < 4 else None, **fields)
        for serial in range(4):
            fields = {"kinds": ["lottery_licensee"], "wok_article": ("3", "9", "27b", "31a")[serial], "balance_tests": [test]}
            self._settle("lottery", f"lottery-{serial}", **fields)
        for serial in range(4):
            self._settle("intermediary", f"broker-{serial}")
        for centre in self._centres:
            self._settle("centre", centre)
        for kind in ("sale", "solicited", "service", "research", "automated", "revived", "cold"):
            self._by_kind[kind] = self._by_kind["consent"]

    def _settle(self, kind: str, party_id: str, **fields: Any) -> None:
        one = party(party_id, **fields)
        if one.get("brand"):
            brothers = [
                value["party_id"] for topic, value in self.references if topic == "parties" and value.get("brand") == one["brand"]
            ]
            for brother in brothers[:1]:
                self._sisters[party_id], self._sisters[brother] = brother, party_id
        self._by_kind.setdefault(kind, []).append(party_id)
        self.references.append(("parties", one))
        self._campaigns(party_id)
        self._caller_numbers(party_id)

    def _campaigns(self, party_id: str) -> None:
        for name, offered, share in (("good", True, 0.02), ("mute", False, 0.02), ("hasty", True, 0.0301), ("unknown", True, None)):
            campaign = {"campaign_id": f"{party_id}/{name}", "advertiser_id": party_id, "objection_offered": offered}
            self.references.append(("campaigns", campaign | {"abandoned_share_24h": share}))

    def _caller_numbers(self, party_id: str) -> None:
        # A call centre dials for everybody, and everybody publishes its numbers.
        published_by = [value["party_id"] for topic, value in self.references if topic == "parties"]
        for serial, fault in enumerate(_LINES):
            line = {"owner_id": party_id, "callable_back": True, "tariff": "normal", "published_by": published_by} | fault
            self.references.append(("caller-numbers", {"number": self._line(party_id, serial)} | line))

    def _line(self, party_id: str, serial: int) -> str:
        return f"+31201{self._order.setdefault(party_id, len(self._order)):03d}{serial:03d}"

    def resident(self, position: int) -> Resident:
        """One number, its facts and its requests: mostly two, of one party or of several."""
        rng = random.Random(self._seed * 10_000_019 + position)
        number = f"+316{position % 10**8:08d}" if position % 25 else f"+4179{position % 10**7:07d}"
        event_ids = (f"{number}-{serial}" for serial in itertools.count(1))
        wishes = 2 if rng.random() < 0.75 else rng.choice((0, 1, 3, 4))
        callee = Scene(rng, TODAY, number, event_ids)
        callee.callee(**self._callee_fields(callee, position))
        facts, requests, releases = list(callee.facts), list[Value](), list[Value]()
        scene = None
        for serial in range(wishes):
            if scene is None or rng.random() < 0.7:
                scene = self._scene(rng, number, event_ids, f"{position}-{serial}")
                facts += scene.facts
                requests.append(scene.request)
            else:
                seconds = rng.randint(0, 600)
                again = {"request_id": f"{position}-{serial}", "dial_at": utc_text(TODAY + timedelta(seconds=seconds))}
                requests.append(scene.request | again)
        broken: list[tuple[str, bytes]] = []
        if position % 500 == 7:
            topic = rng.choice(("objections", "consents"))
            broken.append((topic, f'{{"event_id": "broken-{position}", "number": "{number}", "at": "yesterday"}}'.encode()))
        if position % 1000 == 7 or position % 300 == 0:
            release = {
                "event_id": next(event_ids),
                "number": number,
                "at": utc_text(TODAY),
                "released_by": "op",
                "reason": "read again",
            }
            releases.append(release)
        return Resident(number, facts, requests, broken, releases)

    def _callee_fields(self, scene: Scene, position: int) -> Value:
        draw = scene.rng.random()
        if draw < 0.80:
            return {}
        if draw < 0.86:
            return {"legal_form": scene.pick(*LEGAL)}
        if draw < 0.89:
            at = utc_text(scene.ago(days=20))
            published = {"uri": f"https://example.org/{position}", "at": at, "subjects": [scene.pick("energy", "insurance")]}
            return {"legal_form": scene.pick(*BUSINESS), "published_for_marketing": published}
        if draw < 0.92:
            return {"legal_form": scene.pick(*BUSINESS), "country": scene.pick("CH", "GB", "DE"), "local_rules_met": True}
        if draw < 0.95:
            return {"legal_form": scene.pick(*BUSINESS, "unknown", None)}
        return scene.pick({"age": 15}, {"age_suspected_minor": True}, {"deceased": True}, {"person_ref": "p-2"}, {"person_ref": None})

    def _scene(self, rng: random.Random, number: str, event_ids: Iterator[str], request_id: str) -> Scene:
        """A wish to call, what it leans on, and in more than half of the cases something that is wrong with it."""
        kind = rng.choices(_STREAM_NAMES, cum_weights=_STREAM_BOUNDS)[0]
        scene = Scene(rng, TODAY + timedelta(seconds=int(rng.random() * 600)), number, event_ids)
        if kind == "intermediary":
            scene.intermediary = scene.pick(*self._by_kind["intermediary"])
            scene.advertiser = scene.pick(*self._by_kind["consent"])
        else:
            scene.advertiser = scene.pick(*self._by_kind[kind])
        scene.centre = scene.pick(*self._centres) if rng.random() < 0.2 else None
        sister = self._sisters.get(scene.advertiser, scene.pick(*self._by_kind["consent"]))
        scene.others = [sister, scene.pick(*self._by_kind["charity"]), scene.centre or scene.pick(*self._centres)]
        self._ask(scene, kind, request_id)
        set_up(scene, kind)
        for _ in range(rng.choices((0, 1, 2, 4), cum_weights=(20, 64, 92, 100))[0]):
            if rng.random() < 0.6:
                scene.pick(*TELLING_FAULTS[kind])(scene)
            else:
                rng.choices(_STREAM_FAULTS, cum_weights=_STREAM_FAULT_BOUNDS)[0](scene)
        return scene

    def _ask(self, scene: Scene, kind: str, request_id: str) -> None:
        dialler = scene.pick(scene.centre or scene.responsible, scene.responsible)
        shown = int(scene.rng.random() * 50)
        campaign = "good" if scene.chance(0.93) else scene.pick("mute", "hasty", "unknown", "nowhere")
        request = scene.ask(
            request_id=request_id,
            campaign_id=f"{scene.advertiser}/{campaign}",
            cli={"number": self._line(dialler, shown if shown < len(_LINES) else 0), "withheld": False},
        )
        if kind == "charity":
            request.update(purpose=scene.pick("charitable", "ideal"), subject="donation")
        elif kind == "service":
            promotion = scene.pick("none", "none", "incidental")
            request.update(purpose="service", promotion=promotion, service_necessary=True)
        elif kind == "research":
            request.update(purpose="research", promotion="none", subject=None)
        elif kind == "automated":
            request["dialling_mode"] = "automated_voice"
        if scene.chance(0.01):
            request["dial_at"] = scene.pick(*_ELSEWHEN)
        if scene.chance(0.003):
            request["advertiser_id"] = "nobody"


#: What is odd about the caller numbers of a party; the first is in good order.
_LINES: tuple[Value, ...] = (
    {},
    {"owner_id": "somebody else"},
    {"owner_id": None},
    {"callable_back": False},
    {"tariff": "premium"},
    {"tariff": None},
    {"published_by": []},
    {"in_use_until": "2027-05-22"},
    {"in_use_until": "2027-05-23"},
)


def in_order(fresh: Iterator[T], seed: int, count: int) -> Iterator[tuple[T, bool]]:
    """``count`` requests, mixed up, and whether each repeats an earlier one: one in twenty does.

    They come from a window that moves over ``fresh``, which must have enough for the other nineteen.
    """
    rng = random.Random(seed)
    window, asked = list(itertools.islice(fresh, 5000)), list[T]()
    for serial in range(count):
        if serial % 20 == 19:
            yield asked[int(rng.random() * len(asked))], True
            continue
        place = int(rng.random() * len(window))
        request, window[place] = window[place], window[-1]
        window.pop()
        window += itertools.islice(fresh, 1)
        yield request, False
        asked.append(request)
        if len(asked) > 5000:
            asked[int(rng.random() * 5000)] = asked.pop()
