"""A made-up day of Dutch outbound calling, the same for the same seed: who calls, who is called, and what happens from 14:00.

:class:`Day` gives events without I/O: ``reference()`` and ``facts()`` stand before the day, ``live()`` goes on for ever.
Companies, people and numbers are invented: no Dutch subscriber number begins with 0, and mobile numbers are taken from 06-9,
which no operator uses as far as we know.

The people of the day are a window over an endless row: person *i* follows from the seed and *i* alone. ``live()`` moves the
window on as call lists do, which keeps memory flat and shares steady for hours (until 22:00, when calling hours end).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple, Protocol

import msgspec

from rules.instants import DAY, HOUR, MINUTE, SECOND, format_instant, local_day, parse_instant

#: Monday 23 November 2026, 14:00 in Amsterdam.
DAY_START = "2026-11-23T13:00:00Z"

_MONTH = 30 * DAY


class Event(NamedTuple):
    """One record before it is encoded.

    ``topic`` has no prefix; ``value`` is the record as a JSON object, or bytes where even that is broken; ``sound`` is False
    for a record that is broken on purpose, ``again`` True for one that has been sent before.
    """

    topic: str
    key: str
    value: dict[str, Any] | bytes
    sound: bool = True
    again: bool = False

    def encoded(self) -> bytes:
        """The record's value as it goes on the wire."""
        return self.value if isinstance(self.value, bytes) else msgspec.json.encode(self.value)

    @property
    def request_id(self) -> str | None:
        """Id of a sound call request that is sent for the first time; None for everything else."""
        if self.topic == "call-requests" and self.sound and not self.again and isinstance(self.value, dict):
            return str(self.value["request_id"])
        return None


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


# --- who calls ------------------------------------------------------------------------------------

_TESTS = [{"dated": "2025-09-01", "term_months": 24}]

_PARTIES: tuple[dict[str, Any], ...] = (
    {"party_id": "duinstroom", "name": "Duinstroom Energie", "brand": "Duinstroom", "ddma_member": True, "balance_tests": _TESTS},
    {"party_id": "duinstroom-thuis", "name": "Duinstroom Thuis", "brand": "Duinstroom", "ddma_member": True},
    {"party_id": "veenlicht", "name": "Veenlicht Telecom", "legal_form": "public_company", "engages": ["dijkzicht"]},
    {"party_id": "terpzeker", "name": "Terpzeker Verzekeringen", "legal_form": "public_company", "balance_tests": _TESTS},
    {"party_id": "keuzebaken", "name": "Keuzebaken Vergelijkers", "ddma_member": True},
    {"party_id": "dijkzicht", "name": "Dijkzicht Contact", "ddma_member": True},
    {
        "party_id": "helderwater",
        "name": "Stichting Helder Water",
        "legal_form": "foundation",
        "kinds": ["ideal_or_charitable"],
        "balance_tests": _TESTS,
        "engages": ["dijkzicht"],
    },
    {
        "party_id": "polderpost",
        "name": "De Polderpost",
        "kinds": ["periodical_publisher"],
        "issues_per_year": 303,
        "balance_tests": _TESTS,
    },
    {"party_id": "tuinbode", "name": "Tuinbode Uitgevers", "kinds": ["periodical_publisher"], "issues_per_year": 2},
    {
        "party_id": "molenloterij",
        "name": "Stichting Molenloterij",
        "legal_form": "foundation",
        "kinds": ["lottery_licensee"],
        "wok_article": "3",
        "balance_tests": _TESTS,
    },
)


class _Caller(NamedTuple):
    number: str
    owner_id: str
    tariff: str = "normal"
    published: bool = True
    in_use_until: str | None = None


_CALLERS = (
    _Caller("+31880000101", "duinstroom"),
    _Caller("+31880000102", "duinstroom-thuis"),
    _Caller("+31880000103", "veenlicht"),
    _Caller("+31880000104", "terpzeker"),
    _Caller("+31880000105", "keuzebaken"),
    _Caller("+31880000106", "dijkzicht"),
    _Caller("+31880000107", "helderwater"),
    _Caller("+31880000108", "polderpost"),
    _Caller("+31880000109", "tuinbode"),
    _Caller("+31880000110", "molenloterij"),
    _Caller("+31900000111", "terpzeker", tariff="premium"),
    _Caller("+31880000112", "keuzebaken", published=False),
    _Caller("+31880000113", "veenlicht", in_use_until="2027-01-15"),
)
_OWN_CALLER = {caller.owner_id: caller.number for caller in reversed(_CALLERS)}
_POOR_CALLERS = {"terpzeker": "+31900000111", "keuzebaken": "+31880000112", "veenlicht": "+31880000113"}


@dataclass(frozen=True, slots=True)
class _Campaign:
    campaign_id: str
    advertiser_id: str
    subject: str
    intermediary_id: str | None = None
    call_centre_id: str | None = None
    purpose: str = "commercial"
    mode: str = "manual"
    objection_offered: bool = True
    share: float | None = None  # of calls abandoned in 24 h

    @property
    def responsible_id(self) -> str:
        return self.intermediary_id or self.advertiser_id


_CAMPAIGNS = {
    campaign.campaign_id: campaign
    for campaign in (
        _Campaign("stroom-winter", "duinstroom", "energy/contract", call_centre_id="dijkzicht"),
        _Campaign("zon-op-dak", "duinstroom-thuis", "energy/solar"),
        _Campaign("glasvezel", "veenlicht", "telecom/fibre", call_centre_id="dijkzicht", mode="predictive", share=0.012),
        _Campaign("mobiel-najaar", "veenlicht", "telecom/mobile", mode="predictive", share=0.061),
        _Campaign("storing-bericht", "veenlicht", "telecom/fibre", mode="automated_voice"),
        _Campaign("klantendienst", "veenlicht", "telecom/fibre", purpose="service"),
        _Campaign("autopolis", "terpzeker", "insurance/car"),
        _Campaign("reispolis", "terpzeker", "insurance/travel", objection_offered=False),
        _Campaign("zakenpolis", "terpzeker", "insurance/business"),
        _Campaign("tevredenheid", "terpzeker", "insurance/car", purpose="research"),
        _Campaign("vergelijk-stroom", "duinstroom", "energy/contract", intermediary_id="keuzebaken"),
        _Campaign("vergelijk-bellen", "veenlicht", "telecom/mobile", intermediary_id="keuzebaken"),
        _Campaign("donateurs", "helderwater", "water", call_centre_id="dijkzicht", purpose="charitable"),
        _Campaign("abonnees", "polderpost", "newspaper", purpose="commercial"),
        _Campaign("tuinblad", "tuinbode", "gardening"),
        _Campaign("deelnemers", "molenloterij", "lottery"),
    )
}
_BUSINESS_CAMPAIGN = "zakenpolis"
#: Campaigns that lean on consent, by how many people are on their lists.
_CONSENT_CAMPAIGNS = {
    "stroom-winter": 20,
    "zon-op-dak": 11,
    "glasvezel": 18,
    "mobiel-najaar": 3,
    "storing-bericht": 2,
    "autopolis": 14,
    "reispolis": 2,
    "vergelijk-stroom": 13,
    "vergelijk-bellen": 9,
}
_COLD_CAMPAIGNS = ("stroom-winter", "zon-op-dak", "glasvezel", "autopolis", "vergelijk-stroom", "vergelijk-bellen")

# --- who is called --------------------------------------------------------------------------------

#: What is the matter with a consent, in shares. ``good`` and ``old_used`` carry a call.
_CONSENTS = {
    "good": 58,
    "old_used": 6,
    "late": 9,
    "preticked_box": 3,
    "terms": 2,
    "bundled_clause": 2,
    "combined_tick": 4,
    "purchased_list": 3,
    "unproven": 3,
    "unverified": 4,
    "other_person": 2,
    "other_subject": 3,
    "own_end": 2,
    "email_only": 2,
    "withdrawn": 4,
    "other_party": 7,
    "renewed": 3,
}
#: What is the matter with a relationship of a publisher, lottery or charity, in shares. ``good`` and ``running`` carry a call.
_RELATIONSHIPS = {
    "good": 34,
    "running": 30,
    "test_term": 7,
    "three_years": 5,
    "not_informed": 4,
    "no_optout": 4,
    "no_sale": 5,
    "not_similar": 4,
    "optout_used": 5,
}
_INVITATIONS = {"good": 60, "survey": 14, "unclear": 10, "old": 16}
_FORMS = {"natural_person": 880, "sole_trader": 40, "private_company": 45, "foundation": 8, "unknown": 27}
#: Ages 15 and 16 are too young to be called; a few of them have a telephone on a call list.
_YOUNG_PERCENT = 1.2
#: What goes wrong in a request, in thousandths; ``untried`` is a list that somebody runs before its campaign is on file.
_SLIPS = {"none": 966, "withheld": 6, "false_number": 6, "poor_number": 18, "untried": 4}
#: What came of earlier calls, in shares.
_ENCOUNTERS = {
    "nothing": 740,
    "told_centre": 12,
    "told_everyone": 8,
    "objected": 65,
    "never_there": 30,
    "not_interested": 35,
    "silent": 15,
    "today": 25,
    "no_answer": 70,
}
_PEOPLE = {"consent": 66, "relationship": 19, "customer": 9, "stranger": 6}
_GOOD_CAPTURES = ("unticked_box", "spoken", "written")
_CHECKS = ("sms", "email", "app", "call", "in_person")

# 10,000,000 mobile numbers and 1,000,000 in each city; a multiplier without common factors visits each of them once.
_MOBILE, _CITY, _STRIDE = 10_000_000, 1_000_000, 7_654_321
_CITIES = ("+31200", "+31100", "+31300")


class _Person(NamedTuple):
    """Who a number belongs to, as far as call lists go: the campaigns that have the number, likeliest first."""

    number: str
    ref: str
    campaigns: tuple[str, ...]


def _chance(rng: random.Random, percent: float) -> bool:
    return rng.random() * 100 < percent


def _one_of(rng: random.Random, shares: dict[str, int]) -> str:
    return rng.choices(tuple(shares), tuple(shares.values()))[0]


class Day:
    """The generated day.

    Args:
        seed: the same seed gives the same records, times taken from the clock aside.
        numbers: people whose facts stand before the day; this many are on the call lists at any time.
        start: instant at which the day starts (microseconds since 1970); history lies before it.
    """

    def __init__(self, seed: int = 1, numbers: int = 6000, start: int | None = None) -> None:
        if numbers < 1:
            raise ValueError("numbers: want at least one")
        self.seed = seed
        self.numbers = numbers
        self.start = parse_instant(DAY_START) if start is None else start
        self._people: deque[_Person] = deque(maxlen=numbers)
        self._next_person = 0
        self._count = 0
        self._approved: deque[dict[str, Any]] = deque(maxlen=1000)
        self._recent: deque[Event] = deque(maxlen=200)

    @property
    def names(self) -> dict[str, str]:
        """What to call each party on a screen, by party_id."""
        return {party["party_id"]: party["name"] for party in _PARTIES}

    def reference(self) -> Iterator[Event]:
        """Parties, campaigns and caller numbers."""
        for party in _PARTIES:
            yield Event("parties", party["party_id"], {"legal_form": "private_company", "country": "NL", **party})
        for campaign in _CAMPAIGNS.values():
            value = {
                "campaign_id": campaign.campaign_id,
                "advertiser_id": campaign.advertiser_id,
                "intermediary_id": campaign.intermediary_id,
                "subject": campaign.subject,
                "objection_offered": campaign.objection_offered,
                "script_ref": f"script-{campaign.campaign_id}",
                "abandoned_share_24h": campaign.share,
            }
            yield Event("campaigns", campaign.campaign_id, value)
        everybody = [party["party_id"] for party in _PARTIES]
        for caller in _CALLERS:
            # The call centre's number stands on the site of every client; the others on their owner's.
            published = everybody if caller.owner_id == "dijkzicht" else [caller.owner_id] if caller.published else []
            entry: dict[str, Any] = {
                "number": caller.number,
                "owner_id": caller.owner_id,
                "callable_back": True,
                "tariff": caller.tariff,
                "published_by": published,
                "in_use_until": caller.in_use_until,
            }
            yield Event("caller-numbers", caller.number, entry)

    def facts(self) -> Iterator[Event]:
        """What is known of the first ``numbers`` people before the day starts. Person by person, so that memory stays flat."""
        while self._next_person < self.numbers:
            yield from self._new_person()

    def probes(self, now: int, count: int) -> Iterator[Event]:
        """Call requests for some of the people in ``facts()``, with ids of their own: has the guard taken all in?"""
        rng = random.Random(f"{self.seed}/probes")
        for _ in range(count):
            yield self._call(rng, now, self._anyone(rng), kind="probe")

    def note_approved(self, decision: Approval) -> None:
        """Tell the day of an approval; outcomes of some follow in ``live``."""
        fields = ("number", "advertiser_id", "intermediary_id", "call_centre_id", "campaign_id", "request_id")
        self._approved.append({field: getattr(decision, field) for field in fields})

    def live(self, rng: random.Random, now: Callable[[], int]) -> Iterator[Event]:
        """The day's events, without end: nine in ten are call requests.

        Args:
            rng: decides what happens next; the same one, ``now`` and approvals noted give the same events.
            now: the guard's clock (microseconds since 1970). A request is to be dialled at most 30 s after it.

        Yields:
            Events in the order in which they happen. Take ``facts()`` first, or people whose facts nobody has sent are called.
        """
        while self._next_person < self.numbers:
            for _ in self._new_person():
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
            self._broken_fact: 0.02,
        }
        kinds, weights = tuple(happenings), tuple(happenings.values())
        while True:
            for happen in rng.choices(kinds, weights, k=256):
                yield from happen(rng, now())

    # --- what happens -----------------------------------------------------------------------------

    def _id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self.seed}-{self._count:08d}"

    def _anyone(self, rng: random.Random) -> _Person:
        return self._people[rng.randrange(len(self._people))]

    def _newcomer(self, _rng: random.Random, _now: int) -> Iterator[Event]:
        yield from self._new_person()

    def _request(self, rng: random.Random, now: int) -> Iterator[Event]:
        event = self._call(rng, now, self._anyone(rng))
        self._recent.append(event)
        yield event

    def _call(self, rng: random.Random, now: int, person: _Person, kind: str = "call") -> Event:
        cold = not person.campaigns or _chance(rng, 13)
        campaign = _CAMPAIGNS[rng.choice(_COLD_CAMPAIGNS) if cold else rng.choice(person.campaigns)]
        shown_by = campaign.call_centre_id or campaign.responsible_id
        cli: dict[str, Any] = {"number": _OWN_CALLER[shown_by], "withheld": False}
        campaign_id = campaign.campaign_id
        slip = _one_of(rng, _SLIPS)
        if slip == "withheld":
            cli = {"number": None, "withheld": True}
        elif slip == "false_number":
            cli["number"] = _OWN_CALLER["tuinbode" if shown_by != "tuinbode" else "polderpost"]
        elif slip == "poor_number":
            cli["number"] = _POOR_CALLERS.get(shown_by, cli["number"])
        elif slip == "untried":
            campaign_id = f"{campaign_id}-test"
        value: dict[str, Any] = {
            "request_id": self._id(kind),
            "number": person.number,
            "dial_at": format_instant(now + rng.randrange(30 * SECOND)),
            "advertiser_id": campaign.advertiser_id,
            "intermediary_id": campaign.intermediary_id,
            "call_centre_id": campaign.call_centre_id,
            "campaign_id": campaign_id,
            "purpose": campaign.purpose,
            "subject": campaign.subject,
            "own_offer": campaign.intermediary_id is None and not _chance(rng, 3),
            "dialling_mode": campaign.mode,
            "cli": cli,
            "person_ref": person.ref,
        }
        if campaign.purpose == "service":
            value["promotion"] = rng.choices(("none", "incidental", "material", "dominant"), (62, 22, 10, 6))[0]
            value["service_necessary"] = _chance(rng, 90)
        elif campaign.purpose == "research":
            value["promotion"] = "none" if _chance(rng, 90) else "material"
        return Event("call-requests", person.number, value)

    def _repeat(self, rng: random.Random, _now: int) -> Iterator[Event]:
        """A dialler that got no answer in time sends the same request again."""
        if self._recent:
            yield self._recent[rng.randrange(len(self._recent))]._replace(again=True)

    def _outcome(self, rng: random.Random, now: int) -> Iterator[Event]:
        """How an approved call ended. Only some of them: the demo calls a town's worth of people within minutes."""
        if not self._approved:
            return
        call = self._approved.popleft()
        results = {"connected": 40, "no_answer": 27, "busy": 8, "not_interested": 14, "objected": 6, "silent": 2, "abandoned": 3}
        value = {
            "event_id": self._id("outcome"),
            "number": call["number"],
            "at": format_instant(now),
            "advertiser_id": call["advertiser_id"],
            "intermediary_id": call["intermediary_id"],
            "call_centre_id": call["call_centre_id"],
            "campaign_id": call["campaign_id"],
            "request_id": call["request_id"],
            "result": _one_of(rng, results),
        }
        yield Event("call-outcomes", call["number"], value)

    def _new_consent(self, rng: random.Random, now: int) -> Iterator[Event]:
        person = self._anyone(rng)
        campaign = _CAMPAIGNS[_one_of(rng, _CONSENT_CAMPAIGNS)]
        yield _given(rng, person, campaign.responsible_id, campaign.subject, at=now, event_id=self._id("consent"))

    def _objection(self, rng: random.Random, now: int) -> Iterator[Event]:
        """Somebody has had enough; every second time just after an approval, which is then recalled."""
        just_approved = self._approved[-1] if self._approved and _chance(rng, 50) else None
        person = self._anyone(rng)
        campaign = _CAMPAIGNS[rng.choice(person.campaigns) if person.campaigns else rng.choice(_COLD_CAMPAIGNS)]
        value: dict[str, Any] = {
            "event_id": self._id("objection"),
            "number": person.number,
            "at": format_instant(now),
            "advertiser_id": campaign.advertiser_id,
            "intermediary_id": campaign.intermediary_id,
            "call_centre_id": campaign.call_centre_id,
            "channel": rng.choice(("call", "ivr", "web", "email")),
        }
        if just_approved is not None:
            named = ("number", "advertiser_id", "intermediary_id", "call_centre_id")
            value.update({field: just_approved[field] for field in named})
        if value["call_centre_id"] and _chance(rng, 20):
            value["scope"] = "whole_call_centre"
        yield Event("objections", value["number"], value)

    def _withdrawal(self, rng: random.Random, now: int) -> Iterator[Event]:
        person = self._anyone(rng)
        campaign = _CAMPAIGNS[rng.choice(person.campaigns) if person.campaigns else rng.choice(_COLD_CAMPAIGNS)]
        yield _withdrawn(person, campaign.responsible_id, now, self._id("withdrawal"))

    def _broken_request(self, rng: random.Random, now: int) -> Iterator[Event]:
        """What integrations really send: local time, a national number, a missing field, half a record."""
        whole = self._call(rng, now, self._anyone(rng))
        value = dict(whole.value) if isinstance(whole.value, dict) else {}
        fault = rng.choice(("local_time", "national_number", "no_cli", "cut_short"))
        if fault == "local_time":
            value["dial_at"] = str(value["dial_at"]).rstrip("Z")
        elif fault == "national_number":
            value["number"] = "0" + whole.key.removeprefix("+31")
        elif fault == "no_cli":
            del value["cli"]
        else:
            yield Event(whole.topic, whole.key, whole.encoded()[:-20], sound=False)
            return
        yield Event(whole.topic, whole.key, value, sound=False)

    def _broken_fact(self, rng: random.Random, now: int) -> Iterator[Event]:
        """An objection that cannot be read: the guard suspends the number rather than lose it."""
        event = next(self._objection(rng, now))
        value = dict(event.value) if isinstance(event.value, dict) else {}
        value["at"] = "gisteren"
        yield Event(event.topic, event.key, value, sound=False)

    # --- people and their history -----------------------------------------------------------------

    def _new_person(self) -> list[Event]:
        """The next person of the row joins the call lists, and the one who has been on them longest leaves."""
        index = self._next_person
        self._next_person += 1
        rng = random.Random(f"{self.seed}/{index}")
        history = _History(rng, self._number(index), f"person-{self.seed}-{index}", self.start)
        person = history.write()
        self._people.append(person)
        return history.events

    def _number(self, index: int) -> str:
        place = index + 1_000_003 * self.seed
        if index % 10:
            return f"+3169{place * _STRIDE % _MOBILE:07d}"
        return f"{_CITIES[index // 10 % 3]}{place // 10 * _STRIDE % _CITY:06d}"


class _History:
    """Writes down one person's past as facts."""

    def __init__(self, rng: random.Random, number: str, ref: str, start: int) -> None:
        self.rng = rng
        self.person = _Person(number, ref, ())
        self.start = start
        self.events: list[Event] = []

    def write(self) -> _Person:
        """Fill ``events`` and return the person with the campaigns that have the number."""
        rng = self.rng
        form = _one_of(rng, _FORMS)
        self._callee(form)
        if form in ("private_company", "foundation"):
            return self._listed([_BUSINESS_CAMPAIGN, "zakenpolis", "vergelijk-bellen"])
        kind = _one_of(rng, _PEOPLE)
        campaigns = []
        if kind == "consent":
            for campaign_id in dict.fromkeys(_one_of(rng, _CONSENT_CAMPAIGNS) for _ in range(rng.choice((1, 1, 2)))):
                self._consent(_CAMPAIGNS[campaign_id], _one_of(rng, _CONSENTS))
                campaigns.append(campaign_id)
        elif kind == "relationship":
            campaign_id = rng.choices(("donateurs", "abonnees", "deelnemers", "tuinblad"), (36, 32, 26, 6))[0]
            self._relationship(_CAMPAIGNS[campaign_id], _one_of(rng, _RELATIONSHIPS))
            campaigns.append(campaign_id)
        elif kind == "customer":
            # A sale was a basis until 2026-06-30; lists from before that day are still about.
            campaign_id = rng.choice(("stroom-winter", "zon-op-dak", "glasvezel", "autopolis"))
            sold_by = "duinstroom" if campaign_id == "zon-op-dak" else _CAMPAIGNS[campaign_id].advertiser_id
            self._sale(sold_by, _CAMPAIGNS[campaign_id].subject)
            campaigns.append(campaign_id)
            if campaign_id == "glasvezel":
                campaigns.append("klantendienst")
            elif campaign_id == "autopolis":
                campaigns.append("tevredenheid")
        if campaigns:
            self._encounters(_CAMPAIGNS[campaigns[0]])
        if _chance(rng, 5):
            campaign_id = _one_of(rng, _CONSENT_CAMPAIGNS)
            self._invitation(_CAMPAIGNS[campaign_id], _one_of(rng, _INVITATIONS))
            campaigns.append(campaign_id)
        return self._listed(campaigns)

    def _listed(self, campaigns: Sequence[str]) -> _Person:
        return self.person._replace(campaigns=tuple(campaigns))

    def _ago(self, least: int, most: int) -> int:
        return self.start - self.rng.randrange(least, most)

    def _add(self, topic: str, at: int, **fields: Any) -> None:
        value = {"event_id": self._event_id(), "number": self.person.number, "at": format_instant(at), **fields}
        self.events.append(Event(topic, self.person.number, value))

    def _event_id(self) -> str:
        return f"{self.person.ref}-{len(self.events)}"

    def _callee(self, form: str) -> None:
        rng = self.rng
        fields: dict[str, Any] = {"legal_form": form, "person_ref": self.person.ref, "country": "NL"}
        if form == "natural_person":
            fields["age"] = rng.randint(15, 16) if _chance(rng, _YOUNG_PERCENT) else rng.randint(18, 91)
        elif form == "sole_trader" and _chance(rng, 30):
            published_at = format_instant(self._ago(_MONTH, 20 * _MONTH))
            subjects = ["telecom", "insurance", "energy"]
            fields["published_for_marketing"] = {"uri": "https://example.org/site", "at": published_at, "subjects": subjects}
        self._add("callees", self._ago(12 * _MONTH, 40 * _MONTH), **fields)

    def _consent(self, campaign: _Campaign, quality: str) -> None:
        old = quality in ("late", "old_used")
        at = self._ago(7 * _MONTH, 20 * _MONTH) if old else self._ago(3 * DAY, 5 * _MONTH)
        party_id = campaign.responsible_id
        ended = date.fromordinal(local_day(self.start) - self.rng.randint(1, 60)).isoformat()
        poor: dict[str, dict[str, Any]] = {
            "combined_tick": {"capture": quality, "channels": ["telephone", "email"]},
            "unproven": {"evidence": None},
            "unverified": {"verified_by": None},
            "other_person": {"person_ref": f"{self.person.ref}-before"},
            "other_subject": {"subjects": ["newsletter"]},
            "own_end": {"valid_until": ended},
            "email_only": {"channels": ["email"]},
            "other_party": {"party_ids": ["polderpost"]},
        }
        asked = {"capture": quality} if quality in ("preticked_box", "terms", "bundled_clause", "purchased_list") else {}
        self._give(party_id, campaign.subject, at, **asked, **poor.get(quality, {}))
        if quality == "old_used":
            self._called(campaign, "connected", at + self.rng.randrange(DAY, 4 * _MONTH))
        elif quality in ("withdrawn", "renewed"):
            withdrawn_at = at + self.rng.randrange(HOUR, 2 * DAY)
            self.events.append(_withdrawn(self.person, party_id, withdrawn_at, self._event_id()))
            if quality == "renewed":
                again = withdrawn_at + self.rng.randrange(HOUR, DAY)
                self._give(party_id, campaign.subject, again)

    def _give(self, party_id: str, subject: str, at: int, **other: Any) -> None:
        event = _given(self.rng, self.person, party_id, subject, at=at, event_id=self._event_id(), **other)
        self.events.append(event)

    def _relationship(self, campaign: _Campaign, quality: str) -> None:
        rng = self.rng
        kinds = {"donateurs": "donation", "deelnemers": "lottery_participation"}
        kind = kinds.get(campaign.campaign_id, "subscription")
        today = local_day(self.start)
        ended_ago = {"test_term": rng.randint(760, 1000), "three_years": rng.randint(1110, 1500), "running": None}
        ended = ended_ago.get(quality, rng.randint(20, 600))
        last_day = today - (ended or 0)
        first_day = last_day - rng.randint(100, 1500)
        if quality == "no_sale":
            kind = "petition" if campaign.campaign_id == "donateurs" else "trial"
        self._add(
            "relationships",
            self._ago(10 * DAY, 19 * DAY),
            relationship_id=f"{self.person.ref}-{campaign.advertiser_id}",
            advertiser_id=campaign.advertiser_id,
            kind=kind,
            paid=quality != "no_sale",
            number_given_in_sale=True,
            started_on=date.fromordinal(first_day).isoformat(),
            ended_on=None if ended is None else date.fromordinal(last_day).isoformat(),
            collected_on=date.fromordinal(max(first_day, date(2021, 7, 1).toordinal())).isoformat(),
            informed=quality != "not_informed",
            optout_offered="terms_only" if quality == "no_optout" else "unticked_do_not_call",
            optout_used=quality == "optout_used",
            subjects=["webshop"] if quality == "not_similar" else [campaign.subject],
        )

    def _sale(self, party_id: str, subject: str) -> None:
        first_day = local_day(self.start) - self.rng.randint(90, 900)
        self._add(
            "relationships",
            self._ago(10 * DAY, 60 * DAY),
            relationship_id=f"{self.person.ref}-{party_id}",
            advertiser_id=party_id,
            kind="contract",
            paid=True,
            number_given_in_sale=True,
            started_on=date.fromordinal(first_day).isoformat(),
            ended_on=None,
            collected_on=date.fromordinal(first_day).isoformat(),
            informed=True,
            optout_offered="unticked_do_not_call",
            optout_used=False,
            subjects=[subject],
        )

    def _invitation(self, campaign: _Campaign, quality: str) -> None:
        self._add(
            "invitations",
            self._ago(33 * DAY, 50 * DAY) if quality == "old" else self._ago(10 * MINUTE, 9 * DAY),
            party_id=None if quality == "unclear" else campaign.responsible_id,
            subject=campaign.subject,
            origin="survey" if quality == "survey" else "own_initiative",
            capture="unticked_box",
        )

    def _encounters(self, campaign: _Campaign) -> None:
        """What came of earlier calls, and who objected."""
        what = _one_of(self.rng, _ENCOUNTERS)
        if what in ("told_centre", "told_everyone", "objected"):
            to_all = what == "told_everyone"
            centre = campaign.call_centre_id if what == "told_centre" else None
            self._add(
                "objections",
                self._ago(HOUR, 2 * DAY),
                advertiser_id=None if to_all else campaign.advertiser_id,
                intermediary_id=None if to_all else campaign.intermediary_id,
                call_centre_id=centre,
                scope="whole_call_centre" if centre else None,
                channel=self.rng.choice(("call", "ivr", "web", "email", "letter")),
            )
        elif what == "never_there":
            for days in (4, 9, 17):
                self._called(campaign, self.rng.choice(("no_answer", "busy")), self.start - days * DAY - 3 * HOUR)
        elif what == "today":
            self._called(campaign, "no_answer", self._ago(20 * MINUTE, 4 * HOUR))
        elif what != "nothing":
            spans = {"not_interested": 50 * DAY, "silent": 2 * DAY, "no_answer": 28 * DAY}
            self._called(campaign, what, self._ago(DAY, spans[what]))

    def _called(self, campaign: _Campaign, result: str, at: int) -> None:
        self._add(
            "call-outcomes",
            min(at, self.start - MINUTE),
            advertiser_id=campaign.advertiser_id,
            intermediary_id=campaign.intermediary_id,
            call_centre_id=campaign.call_centre_id,
            campaign_id=campaign.campaign_id,
            result=result,
        )


def _given(
    rng: random.Random, person: _Person, party_id: str, subject: str, *, at: int, event_id: str, **other: Any
) -> Event:
    """A consent with nothing the matter but ``other``; it covers the whole branch (``energy``) or the one product."""
    value = {
        "event_id": event_id,
        "number": person.number,
        "at": format_instant(at),
        "kind": "given",
        "party_ids": [party_id],
        "subjects": [subject.partition("/")[0] if _chance(rng, 60) else subject],
        "channels": ["telephone"],
        "capture": rng.choice(_GOOD_CAPTURES),
        "evidence": {"uri": f"s3://proof/{event_id}", "sha256": f"{rng.getrandbits(256):064x}"},
        "person_ref": person.ref,
        "verified_by": rng.choice(_CHECKS),
        **other,
    }
    return Event("consents", person.number, value)


def _withdrawn(person: _Person, party_id: str, at: int, event_id: str) -> Event:
    value = {
        "event_id": event_id,
        "number": person.number,
        "at": format_instant(at),
        "kind": "withdrawn",
        "party_ids": [party_id],
    }
    return Event("consents", person.number, value)
