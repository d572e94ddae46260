"""Both sides of every border of dates, hours, terms and counts, written from law.md sections 2 to 4 and contract.md.

A row is a title, what must come out (the basis, or the reasons in order), and a call in good order with one thing changed. Times are
wall clock times in Amsterdam.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec
import pytest

from config.rulebook import load_rulebook
from ops.door import decide_line
from rules.decide import decide
from rules.decision import Decision
from rules.events import REFERENCE_MODELS, REQUEST_TOPIC, NumberEvent, ReferenceEntry, validate
from rules.facts import NumberFacts
from rules.instants import parse_instant
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import Rulebook

Value = dict[str, Any]
Row = tuple[str, str, Value]

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
NUMBER, SWISS, CALLER = "+31612345678", "+41791234567", "+31201234567"


@cache
def book() -> Rulebook:
    """The rulebook, read once."""
    return load_rulebook()


def clock(text: str) -> datetime:
    """An instant: ``2026-11-23 14:00[:30]`` by the clocks of Amsterdam, or RFC 3339."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=AMSTERDAM)).astimezone(UTC)


def rfc(moment: datetime) -> str:
    """An instant as RFC 3339."""
    return moment.isoformat().replace("+00:00", "Z")


def before(at: str, **span: float) -> str:
    """An instant some time before another."""
    return rfc(clock(at) - timedelta(**span))


def call(
    at: str, basis: str = "consent", *facts: tuple[str, Value], member: bool = False, number: str = NUMBER, **changed: Any
) -> Value:
    """A line of the offline door: a call in good order on one basis, with more facts and with changes to what it is made of.

    ``changed`` holds the fields that differ: of ``advertiser``, ``campaign``, ``caller``, ``request``, ``callee``, or of the basis
    itself (``on``). ``without`` names reference topics of which nothing is on file.
    """
    day = clock(at).astimezone(AMSTERDAM).date()
    kinds = {"charity": ["ideal_or_charitable"], "publisher": ["periodical_publisher"], "lottery": ["lottery_licensee"]}.get(basis, [])
    advertiser = {
        "party_id": "A",
        "kinds": kinds,
        "issues_per_year": 12,
        "wok_article": "9",
        "ddma_member": member,
        "balance_tests": [{"dated": "2017-01-16", "term_months": 36}],
    }
    campaign = {"campaign_id": "c-1", "objection_offered": True, "abandoned_share_24h": 0.01}
    caller = {"number": CALLER, "owner_id": "A", "callable_back": True, "tariff": "normal", "published_by": ["A", "I"]}
    request = {
        "request_id": "q-1",
        "number": number,
        "dial_at": rfc(clock(at)),
        "advertiser_id": "A",
        "campaign_id": "c-1",
        "purpose": "charitable" if basis == "charity" else basis if basis in ("service", "research") else "commercial",
        "promotion": "none" if basis in ("service", "research") else None,
        "service_necessary": True if basis == "service" else None,
        "subject": "energy/solar",
        "own_offer": True,
        "dialling_mode": "automated_voice" if basis == "automated" else "manual",
        "cli": {"number": CALLER, "withheld": False},
        "scrubbed_on": (day - timedelta(7)).isoformat() if day < date(2021, 7, 1) else None,
    }
    callee = {
        "legal_form": "private_company" if basis == "legal person" else "natural_person",
        "person_ref": "p-1",
        "age": 45,
        "country": "NL",
        "do_not_call_registered_on": "2010-01-01" if basis == "own customer" else None,
    }
    lists = [
        ("parties", advertiser | changed.get("advertiser", {})),
        ("parties", {"party_id": "I", "ddma_member": member}),
        ("campaigns", campaign | changed.get("campaign", {})),
        ("caller-numbers", caller | changed.get("caller", {})),
        ("callees", {"event_id": "callee", "number": number, "at": "2009-01-01T12:00:00Z"} | callee | changed.get("callee", {})),
        *_leant_on(basis, at, day, number, changed.get("on", {})),
        *((topic, {"event_id": f"more-{n}", "number": number} | value) for n, (topic, value) in enumerate(facts)),
    ]
    kept = [{"topic": topic, "value": value} for topic, value in lists if topic not in changed.get("without", ())]
    return {"case": None, "facts": kept, "request": request | changed.get("request", {})}


def _leant_on(basis: str, at: str, day: date, number: str, on: Value) -> list[tuple[str, Value]]:
    """The fact that a call leans on, if it needs one."""
    event = {"event_id": "basis", "number": number, "at": before(at, days=20)}
    if basis in ("consent", "automated"):
        return [("consents", event | consent() | on)]
    if basis == "invited":
        return [("invitations", event | {"party_id": "A", "subject": "energy", "origin": "own_initiative", "capture": "spoken"} | on)]
    kinds = {"sale": "purchase", "own customer": "contract", "publisher": "subscription", "lottery": "lottery_participation"}
    if basis in kinds or basis == "charity":
        start = (day - timedelta(100)).isoformat()
        sale = {
            "relationship_id": "r-1",
            "advertiser_id": "A",
            "kind": kinds.get(basis, "donation"),
            "paid": True,
            "number_given_in_sale": True,
            "started_on": start,
            "collected_on": start,
            "informed": True,
            "optout_offered": "spoken",
            "subjects": ["energy"],
        }
        return [("relationships", event | sale | on)]
    return []


def consent(**fields: Any) -> Value:
    """A consent with all that it needs."""
    good = {
        "kind": "given",
        "party_ids": ["A"],
        "subjects": ["energy"],
        "channels": ["telephone"],
        "capture": "written",
        "evidence": {"uri": "https://example.org/1", "sha256": "0" * 64},
        "person_ref": "p-1",
        "verified_by": "sms",
    }
    return good | fields


def outcome(result: str, at: str, **fields: Any) -> tuple[str, Value]:
    """How an earlier call for the advertiser ended."""
    return "call-outcomes", {"at": rfc(clock(at)), "advertiser_id": "A", "campaign_id": "c-9", "result": result} | fields


def objection(at: str, **fields: Any) -> tuple[str, Value]:
    """An objection to the advertiser."""
    return "objections", {"at": rfc(clock(at)), "advertiser_id": "A"} | fields


def withdrawal(at: str) -> tuple[str, Value]:
    """A withdrawal from everyone."""
    return "consents", {"at": rfc(clock(at)), "kind": "withdrawn"}


def two_sides(title: str, left: tuple[str, str], right: tuple[str, str], *arguments: Any, **fields: Any) -> list[Row]:
    """The same call on both sides of a border of dates: (instant, what comes out) twice."""
    return [(f"{title}: {at} gives {want}", want, call(at, *arguments, **fields)) for at, want in (left, right)]


def each(title: str, want: str, *instants: str, **fields: Any) -> list[Row]:
    """The same call at several instants, always with the same outcome."""
    return [(f"{title}: {at} gives {want}", want, call(at, **fields)) for at in instants]


SOMEBODY_ELSES = {"caller": {"owner_id": "Z"}}
WITHHELD = {"request": {"cli": {"number": None, "withheld": True}}}

REGIMES = [
    *two_sides(
        "no rulebook before 2009-10-01", ("2009-09-30 14:00", "S_STATE_UNAVAILABLE"), ("2009-10-01 14:00", "OK_OPTOUT_PRE2021"), "none"
    ),
    *two_sides("opt-out ends", ("2021-06-30 14:00", "OK_OPTOUT_PRE2021"), ("2021-07-01 14:00", "E_NO_BASIS"), "none"),
    *two_sides(
        "own customers", ("2021-06-30 14:00", "OK_OWN_CUSTOMER_PRE2021"), ("2021-07-01 14:00", "OK_RELATIONSHIP"), "own customer"
    ),
    *two_sides("customers end", ("2026-06-30 14:00", "OK_RELATIONSHIP"), ("2026-07-01 14:00", "E_REL_ABOLISHED"), "sale"),
    *two_sides("charities go on", ("2026-06-30 14:00", "OK_CHARITY_RELATION"), ("2026-07-01 14:00", "OK_CHARITY_RELATION"), "charity"),
    *two_sides("publishers", ("2026-06-30 14:00", "OK_RELATIONSHIP"), ("2026-07-01 14:00", "OK_PERIODICAL_PUBLISHER"), "publisher"),
    *two_sides("lotteries", ("2026-06-30 14:00", "OK_RELATIONSHIP"), ("2026-07-01 14:00", "OK_LOTTERY_LICENSEE"), "lottery"),
    *two_sides("consent outlives a regime", ("2026-06-30 14:00", "OK_CONSENT"), ("2026-07-01 14:00", "OK_CONSENT"), "consent"),
    *two_sides(
        "charity links begin", ("2021-06-30 14:00", "OK_OPTOUT_PRE2021"), ("2021-07-01 14:00", "OK_CHARITY_RELATION"), "charity"
    ),
    *two_sides(
        "a charity's shop (H-07)",
        ("2026-06-30 14:00", "OK_RELATIONSHIP"),
        ("2026-07-01 14:00", "E_CHARITY_NO_LINK E_REL_ABOLISHED"),
        "charity",
        on={"kind": "purchase"},
    ),
    *two_sides(
        "the register is forgotten (L-07)",
        ("2021-06-30 14:00", "E_BMNR"),
        ("2021-07-01 14:00", "OK_CONSENT"),
        "consent",
        callee={"do_not_call_registered_on": "2015-01-01"},
    ),
    *two_sides(
        "published numbers (S-11)",
        ("2021-06-30 14:00", "E_BMNR"),
        ("2021-07-01 14:00", "OK_PUBLISHED_FOR_MARKETING"),
        "none",
        callee={
            "legal_form": "sole_trader",
            "do_not_call_registered_on": "2015-01-01",
            "published_for_marketing": {"uri": "https://x/1", "at": "2020-01-01T00:00:00Z", "subjects": ["energy"]},
        },
    ),
    *two_sides(
        "professionals outside the EEA (S-13)",
        ("2021-06-30 14:00", "E_BMNR"),
        ("2021-07-01 14:00", "OK_NON_EEA_PROFESSIONAL"),
        "none",
        callee={"legal_form": "sole_trader", "do_not_call_registered_on": "2015-01-01", "country": "CH", "local_rules_met": True},
    ),
]

CODES = [
    *two_sides(
        "false numbers (N-02)", ("2016-06-30 14:00", "OK_OPTOUT_PRE2021"), ("2016-07-01 14:00", "E_CLI_FALSE"), "none", **SOMEBODY_ELSES
    ),
    *two_sides(
        "withheld, code of 2020", ("2020-02-29 14:00", "OK_OPTOUT_PRE2021"), ("2020-03-02 14:00", "E_CLI_WITHHELD"), "none", **WITHHELD
    ),
    *two_sides(
        "withheld on the code's first day, a Sunday",
        ("2020-02-23 14:00", "E_DAY_SUNDAY"),
        ("2020-03-01 14:00", "E_CLI_WITHHELD E_DAY_SUNDAY"),
        "none",
        **WITHHELD,
    ),
    *two_sides(
        "withheld by a member",
        ("2019-12-31 14:00", "OK_OPTOUT_PRE2021"),
        ("2020-01-01 14:00", "E_CLI_WITHHELD E_DAY_HOLIDAY"),
        "none",
        member=True,
        **WITHHELD,
    ),
    *two_sides(
        "withheld to a firm",
        ("2021-06-30 14:00", "OK_LEGAL_ENTITY"),
        ("2021-07-01 14:00", "E_CLI_WITHHELD"),
        "legal person",
        **WITHHELD,
    ),
    *two_sides(
        "not callable (N-03)",
        ("2020-02-29 14:00", "OK_OPTOUT_PRE2021"),
        ("2020-03-02 14:00", "E_CLI_NOT_CALLABLE"),
        "none",
        caller={"callable_back": False},
    ),
    *two_sides(
        "dear to call back, a member's (N-04)",
        ("2019-12-31 14:00", "OK_OPTOUT_PRE2021"),
        ("2020-01-02 14:00", "E_CLI_PREMIUM"),
        "none",
        member=True,
        caller={"tariff": "premium"},
    ),
    *two_sides(
        "dear to call back, not a member's",
        ("2020-01-02 14:00", "OK_OPTOUT_PRE2021"),
        ("2020-03-02 14:00", "E_CLI_PREMIUM"),
        "none",
        caller={"tariff": None},
    ),
    *two_sides(
        "own customers need a balance test (R-09)",
        ("2020-02-29 14:00", "OK_OWN_CUSTOMER_PRE2021"),
        ("2020-03-02 14:00", "E_BMNR E_REL_NO_BALANCE_TEST"),
        "own customer",
        advertiser={"balance_tests": []},
    ),
    *two_sides(
        "three years at most (R-08)",
        ("2020-05-30 14:00", "OK_OWN_CUSTOMER_PRE2021"),
        ("2020-06-02 14:00", "E_BMNR E_REL_TERM_EXCEEDED"),
        "own customer",
        advertiser={"balance_tests": [{"dated": "2017-01-16", "term_months": 60}]},
        on={"started_on": "2015-01-01", "ended_on": "2016-11-01"},
    ),
    *two_sides(
        "a pre-ticked box for a machine (C-02)",
        ("2018-05-24 14:00", "OK_CONSENT"),
        ("2018-05-25 14:00", "E_AUTOMATED_NO_CONSENT"),
        "automated",
        on={"capture": "preticked_box"},
    ),
    *two_sides(
        "proof (B-02)",
        ("2021-06-30 14:00", "OK_CONSENT"),
        ("2021-07-01 14:00", "E_AUTOMATED_NO_CONSENT"),
        "automated",
        on={"evidence": None},
    ),
    *two_sides(
        "proof for each person (B-03)",
        ("2022-05-31 14:00", "OK_CONSENT"),
        ("2022-06-01 14:00", "E_CONSENT_UNPROVEN"),
        on={"person_ref": "p-2"},
    ),
    *two_sides(
        "4 May becomes a day of silence",
        ("2024-05-04 14:00", "OK_CONSENT"),
        ("2026-05-04 14:00", "E_DAY_SPECIAL"),
    ),
    *each("4 May for a member, whose code of 2024 came in March", "E_DAY_SPECIAL", "2024-05-04 14:00", member=True),
]
#: What the code of 2024 asks, by what lacks: binding from 2024-10-15, for members from 2024-03-01.
for _title, _want, _lacking in (
    ("bundled consent (C-06)", "E_CONSENT_BUNDLED", {"on": {"capture": "bundled_clause"}}),
    ("unverified consent (C-12)", "E_CONSENT_UNVERIFIED", {"on": {"verified_by": None}}),
    ("first contact late (C-11)", "E_CONSENT_FIRST_CONTACT_LATE", {"on": {"at": "2022-01-10T12:00:00Z"}}),
    ("out of use soon (N-05)", "E_CLI_NOT_CALLABLE", {"caller": {"in_use_until": "2024-06-01"}}),
    ("unpublished number (N-06)", "E_CLI_NOT_PUBLISHED", {"caller": {"published_by": []}}),
):
    CODES += two_sides(_title, ("2024-10-14 14:00", "OK_CONSENT"), ("2024-10-15 14:00", _want), **_lacking)
    CODES += two_sides(f"{_title}, member", ("2024-02-29 14:00", "OK_CONSENT"), ("2024-03-01 14:00", _want), member=True, **_lacking)

MINOR = {"callee": {"age": 16}}
DAYS = [
    *two_sides("hours before the first code", ("2012-06-29 23:00", "OK_OPTOUT_PRE2021"), ("2012-07-02 23:00", "E_TIME_WINDOW"), "none"),
    *two_sides(
        "Sundays before the first code", ("2012-06-24 14:00", "OK_OPTOUT_PRE2021"), ("2012-07-01 14:00", "E_DAY_SUNDAY"), "none"
    ),
    *two_sides("minors before 2012", ("2011-12-31 14:00", "OK_OPTOUT_PRE2021"), ("2012-01-01 14:00", "E_MINOR"), "none", **MINOR),
    *two_sides("weekdays open", ("2026-11-23 08:59:59", "E_TIME_WINDOW"), ("2026-11-23 09:00", "OK_CONSENT")),
    *two_sides("weekdays close", ("2026-11-23 21:59:59", "OK_CONSENT"), ("2026-11-23 22:00", "E_TIME_WINDOW")),
    *two_sides("Saturdays open", ("2026-11-28 09:59:59", "E_TIME_WINDOW"), ("2026-11-28 10:00", "OK_CONSENT")),
    *two_sides("Saturdays close", ("2026-11-28 15:59:59", "OK_CONSENT"), ("2026-11-28 16:00", "E_TIME_WINDOW")),
    *two_sides("service calls open", ("2026-11-23 07:59:59", "E_TIME_WINDOW"), ("2026-11-23 08:00", "OK_SERVICE"), "service"),
    *two_sides("service calls close", ("2026-11-23 20:59:59", "OK_SERVICE"), ("2026-11-23 21:00", "E_TIME_WINDOW"), "service"),
    *each("service calls on Sundays and holidays", "OK_SERVICE", "2026-11-29 12:00", "2026-12-25 12:00", basis="service"),
    *each("research at any hour", "OK_NOT_TELEMARKETING", "2026-11-29 03:00", "2026-12-25 23:30", basis="research"),
    *each("firms keep the hours too (T-09)", "E_TIME_WINDOW", "2026-11-23 22:00", basis="legal person"),
    *each("Sundays", "E_DAY_SUNDAY", "2026-11-22 00:00", "2026-11-22 14:00", "2026-11-22 23:59:59"),
    *two_sides("Saturday night is no Sunday yet", ("2026-11-21 23:59:59", "E_TIME_WINDOW"), ("2026-11-22 00:00:00", "E_DAY_SUNDAY")),
    *two_sides("5 December ends early", ("2025-12-05 18:29:59", "OK_CONSENT"), ("2025-12-05 18:30", "E_DAY_SPECIAL")),
    *two_sides("24 December ends early", ("2025-12-24 18:29:59", "OK_CONSENT"), ("2025-12-24 18:30", "E_DAY_SPECIAL")),
    *two_sides(
        "4 May ended early until the code of 2024", ("2023-05-04 18:29:59", "OK_CONSENT"), ("2023-05-04 18:30", "E_DAY_SPECIAL")
    ),
    *two_sides(
        "5 December on a Saturday keeps Saturday's hours", ("2026-12-05 15:59:59", "OK_CONSENT"), ("2026-12-05 16:00", "E_TIME_WINDOW")
    ),
    *each("an evening before and after an early stop", "OK_CONSENT", "2025-12-04 19:00", "2025-12-08 19:00", "2025-12-23 21:00"),
    *each("4 May on a Sunday", "E_DAY_SUNDAY E_DAY_SPECIAL", "2025-05-04 14:00"),
    *each("Good Friday", "E_DAY_HOLIDAY", "2025-04-18 14:00", "2026-04-03 14:00", "2027-03-26 14:00"),
    *each("the day before Good Friday", "OK_CONSENT", "2025-04-17 14:00", "2026-04-02 14:00", "2027-03-25 14:00"),
    *each("Easter Sunday", "E_DAY_SUNDAY E_DAY_HOLIDAY", "2025-04-20 14:00", "2026-04-05 14:00", "2027-03-28 14:00"),
    *each("Easter Monday", "E_DAY_HOLIDAY", "2025-04-21 14:00", "2026-04-06 14:00", "2027-03-29 14:00"),
    *each("the day after Easter Monday", "OK_CONSENT", "2025-04-22 14:00", "2026-04-07 14:00", "2027-03-30 14:00"),
    *each("Ascension Day", "E_DAY_HOLIDAY", "2025-05-29 14:00", "2026-05-14 14:00", "2027-05-06 14:00"),
    *each("the day after Ascension Day", "OK_CONSENT", "2025-05-30 14:00", "2026-05-15 14:00", "2027-05-07 14:00"),
    *each("Whit Sunday", "E_DAY_SUNDAY E_DAY_HOLIDAY", "2025-06-08 14:00", "2026-05-24 14:00", "2027-05-16 14:00"),
    *each("Whit Monday", "E_DAY_HOLIDAY", "2025-06-09 14:00", "2026-05-25 14:00", "2027-05-17 14:00"),
    *each("the day after Whit Monday", "OK_CONSENT", "2025-06-10 14:00", "2026-05-26 14:00", "2027-05-18 14:00"),
    *each("King's Day, in 2025 on the Saturday", "E_DAY_HOLIDAY", "2025-04-26 14:00", "2026-04-27 14:00", "2027-04-27 14:00"),
    *each("the 27th of April 2025 is a Sunday and no more", "E_DAY_SUNDAY", "2025-04-27 14:00"),
    *each("beside King's Day", "OK_CONSENT", "2025-04-25 14:00", "2025-04-28 14:00", "2027-04-26 14:00", "2027-04-28 14:00"),
    *each("Liberation Day every year", "E_DAY_HOLIDAY", "2025-05-05 14:00", "2026-05-05 14:00", "2027-05-05 14:00"),
    *each("New Year and Christmas", "E_DAY_HOLIDAY", "2026-01-01 14:00", "2025-12-25 14:00", "2025-12-26 14:00"),
    *each("beside New Year and Christmas", "OK_CONSENT", "2025-12-31 20:00", "2026-01-02 14:00", "2025-12-27 14:00"),
    *two_sides("Friday before summer time", ("2026-03-27T07:59:59Z", "E_TIME_WINDOW"), ("2026-03-27T08:00:00Z", "OK_CONSENT")),
    *two_sides("Monday after it began", ("2026-03-30T06:59:59Z", "E_TIME_WINDOW"), ("2026-03-30T07:00:00Z", "OK_CONSENT")),
    *two_sides("Friday evening before it ends", ("2025-10-24T19:59:59Z", "OK_CONSENT"), ("2025-10-24T20:00:00Z", "E_TIME_WINDOW")),
    *two_sides("Monday evening after it ended", ("2025-10-27T20:59:59Z", "OK_CONSENT"), ("2025-10-27T21:00:00Z", "E_TIME_WINDOW")),
    *each("the days of the change are Sundays", "E_DAY_SUNDAY", "2026-03-29T01:00:00Z", "2025-10-26T00:30:00Z", "2025-10-26T01:30:00Z"),
]

NOON = "2026-11-23 14:00"
CONSENTS: list[Row] = [
    ("a consent a second before the call", "OK_CONSENT", call(NOON, on={"at": before(NOON, seconds=1)})),
    ("a consent at the call's instant", "E_CONSENT_NOT_PRIOR", call(NOON, on={"at": before(NOON)})),
    ("its last day by its own terms", "OK_CONSENT", call(NOON, on={"valid_until": "2026-11-23"})),
    ("the day after its own terms", "E_CONSENT_EXPIRED_OWN_TERMS", call(NOON, on={"valid_until": "2026-11-22"})),
    ("a giver of 16", "OK_CONSENT", call(NOON, on={"giver_age": 16})),
    ("a giver of 15", "E_MINOR", call(NOON, on={"giver_age": 15})),
    ("a callee of 17", "OK_CONSENT", call(NOON, callee={"age": 17})),
    ("a callee of 16", "E_MINOR", call(NOON, callee={"age": 16})),
    ("a callee of 15", "E_MINOR", call(NOON, callee={"age": 15})),
    ("a callee of unknown age", "OK_CONSENT", call(NOON, callee={"age": None})),
    ("evidence without its digest", "E_CONSENT_UNPROVEN", call(NOON, on={"evidence": {"uri": "https://x/1"}})),
    ("a subject above the request's", "OK_CONSENT", call(NOON, on={"subjects": ["energy"]})),
    ("a subject below the request's", "E_CONSENT_SUBJECT", call(NOON, on={"subjects": ["energy/solar/panels"]})),
    ("a subject that only begins alike", "E_CONSENT_SUBJECT", call(NOON, on={"subjects": ["energ"]})),
    ("an objection a second before the consent", "OK_CONSENT", call(NOON, "consent", objection(before(NOON, days=20, seconds=1)))),
    ("an objection at the consent's instant", "E_OBJECTION", call(NOON, "consent", objection(before(NOON, days=20)))),
    ("an objection after the call", "E_OBJECTION", call(NOON, "consent", objection("2026-11-24 14:00"))),
    ("a withdrawal a second before the consent", "OK_CONSENT", call(NOON, "consent", withdrawal(before(NOON, days=20, seconds=1)))),
    ("a withdrawal at the consent's instant", "E_CONSENT_WITHDRAWN", call(NOON, "consent", withdrawal(before(NOON, days=20)))),
    *two_sides(
        "six months to the first contact",
        ("2025-11-26 14:00", "OK_CONSENT"),
        ("2025-11-27 14:00", "E_CONSENT_FIRST_CONTACT_LATE"),
        on={"at": rfc(clock("2025-05-26 23:30"))},
    ),
    *two_sides(
        "six months from 31 August",
        ("2026-02-28 14:00", "OK_CONSENT"),
        ("2026-03-02 14:00", "E_CONSENT_FIRST_CONTACT_LATE"),
        on={"at": rfc(clock("2025-08-31 12:00"))},
    ),
    *two_sides(
        "a shorter stated period",
        ("2025-08-26 14:00", "OK_CONSENT"),
        ("2025-08-27 14:00", "E_CONSENT_FIRST_CONTACT_LATE"),
        on={"at": rfc(clock("2025-05-26 12:00")), "first_contact_within_months": 3},
    ),
    *two_sides(
        "a longer stated period",
        ("2026-05-26 14:00", "OK_CONSENT"),
        ("2026-05-27 14:00", "E_CONSENT_FIRST_CONTACT_LATE"),
        on={"at": rfc(clock("2025-05-26 12:00")), "first_contact_within_months": 12},
    ),
]
for _contact, _want in (("2025-11-26 23:59", "OK_CONSENT"), ("2025-11-27 00:00", "E_CONSENT_FIRST_CONTACT_LATE")):
    _line = call("2026-02-16 14:00", "consent", outcome("connected", _contact), on={"at": rfc(clock("2025-05-26 12:00"))})
    CONSENTS.append((f"first contact at {_contact}, six months after the consent or later", _want, _line))

INVITATIONS: list[Row] = [
    ("an invitation of 30 days", "OK_SOLICITED", call(NOON, "invited", on={"at": before(NOON, days=30)})),
    ("a second older", "E_SOLICITED_CONSUMED E_NO_BASIS", call(NOON, "invited", on={"at": before(NOON, days=30, seconds=1)})),
    ("an invitation a second ago", "OK_SOLICITED", call(NOON, "invited", on={"at": before(NOON, seconds=1)})),
    ("an invitation at the call's instant", "E_NO_BASIS", call(NOON, "invited", on={"at": before(NOON)})),
    ("an objection a second before it", "OK_SOLICITED", call(NOON, "invited", objection(before(NOON, days=20, seconds=1)))),
    ("an objection at its instant", "E_OBJECTION E_NO_BASIS", call(NOON, "invited", objection(before(NOON, days=20)))),
    ("an objection a second after it", "E_OBJECTION E_NO_BASIS", call(NOON, "invited", objection(before(NOON, days=19)))),
    ("connected before it", "OK_SOLICITED", call(NOON, "invited", outcome("connected", before(NOON, days=21)))),
    ("connected since", "E_SOLICITED_CONSUMED E_NO_BASIS", call(NOON, "invited", outcome("connected", before(NOON, days=19)))),
    ("unanswered since", "OK_SOLICITED", call(NOON, "invited", outcome("no_answer", before(NOON, days=19)))),
    ("from a survey", "E_SOLICITED_NOT_OWN_INITIATIVE E_NO_BASIS", call(NOON, "invited", on={"origin": "survey"})),
    ("to nobody by name", "E_SOLICITED_UNCLEAR E_NO_BASIS", call(NOON, "invited", on={"party_id": None})),
]
for _seconds, _want in ((0, "OK_SOLICITED"), (900, "OK_SOLICITED"), (901, "E_DAY_SUNDAY"), (-1, "E_DAY_SUNDAY")):
    _agreed = before("2026-11-22 12:00", seconds=_seconds)
    INVITATIONS.append(
        (f"Sunday, {_seconds} s after the time agreed", _want, call("2026-11-22 12:00", "invited", on={"agreed_at": _agreed}))
    )

_AT_NOON = {"agreed_at": rfc(clock("2026-11-22 12:00"))}
_AGREED = {"party_id": "A", "subject": "energy", "origin": "own_initiative", "capture": "spoken"} | _AT_NOON
INVITATIONS += [
    (
        f"two invitations, the {name} with a time agreed for now",
        "OK_SOLICITED",
        call("2026-11-22 12:05", "invited", ("invitations", {"at": before(NOON, days=9)} | _AGREED | other), on=on),
    )
    for name, on, other in (("first", _AT_NOON, {"agreed_at": None}), ("second", {}, {}))
]

ENDED = {"started_on": "2015-01-01", "collected_on": "2022-01-01"}
YEARS_5 = {"balance_tests": [{"dated": "2017-01-16", "term_months": 36}]}
RELATIONSHIPS: list[Row] = [
    *two_sides(
        "three years after the end",
        ("2025-11-25 14:00", "OK_RELATIONSHIP"),
        ("2025-11-26 14:00", "E_REL_TERM_EXCEEDED"),
        "sale",
        on=ENDED | {"ended_on": "2022-11-25"},
    ),
    *two_sides(
        "three years from 29 February",
        ("2023-02-28 14:00", "OK_RELATIONSHIP"),
        ("2023-03-01 14:00", "E_REL_TERM_EXCEEDED"),
        "sale",
        on=ENDED | {"ended_on": "2020-02-29"},
    ),
    *two_sides(
        "a donor's three years (H-04)",
        ("2026-11-25 14:00", "OK_CHARITY_RELATION"),
        ("2026-11-26 14:00", "E_REL_TERM_EXCEEDED"),
        "charity",
        on=ENDED | {"ended_on": "2023-11-25"},
    ),
    *two_sides(
        "a reader's three years (X-03)",
        ("2026-11-25 14:00", "OK_PERIODICAL_PUBLISHER"),
        ("2026-11-26 14:00", "E_REL_TERM_EXCEEDED"),
        "publisher",
        on=ENDED | {"ended_on": "2023-11-25"},
    ),
    *two_sides(
        "a test's term of twelve months",
        ("2025-11-25 14:00", "OK_RELATIONSHIP"),
        ("2025-11-26 14:00", "E_REL_BALANCE_TERM_EXCEEDED"),
        "sale",
        advertiser={"balance_tests": [{"dated": "2020-01-15", "term_months": 12}]},
        on=ENDED | {"ended_on": "2024-11-25"},
    ),
    *two_sides(
        "eighteen months from 31 August",
        ("2025-02-28 14:00", "OK_RELATIONSHIP"),
        ("2025-03-01 14:00", "E_REL_BALANCE_TERM_EXCEEDED"),
        "sale",
        advertiser={"balance_tests": [{"dated": "2020-01-15", "term_months": 18}]},
        on=ENDED | {"ended_on": "2023-08-31"},
    ),
    *two_sides(
        "five years by advice (R-10)",
        ("2025-12-01 14:00", "OK_RELATIONSHIP"),
        ("2025-12-02 14:00", "E_REL_TERM_EXCEEDED"),
        "sale",
        advertiser={"term_extensions": [{"advised_on": "2024-01-10", "months": 60}]},
        on=ENDED | {"ended_on": "2020-12-01"},
    ),
    *two_sides(
        "advice counts from the day after",
        ("2024-01-10 14:00", "E_REL_TERM_EXCEEDED"),
        ("2024-01-11 14:00", "OK_RELATIONSHIP"),
        "sale",
        advertiser={"term_extensions": [{"advised_on": "2024-01-10", "months": 60}]},
        on=ENDED | {"ended_on": "2020-12-01"},
    ),
    *two_sides(
        "advice that is pending gives nothing",
        ("2023-12-01 14:00", "OK_RELATIONSHIP"),
        ("2023-12-02 14:00", "E_REL_TERM_EXCEEDED"),
        "sale",
        advertiser={"term_extensions": [{"advised_on": "2022-01-10", "months": None}]},
        on=ENDED | {"ended_on": "2020-12-01"},
    ),
    *two_sides(
        "a test counts from the day after",
        ("2025-11-25 14:00", "E_REL_NO_BALANCE_TEST"),
        ("2025-11-26 14:00", "OK_RELATIONSHIP"),
        "sale",
        advertiser={"balance_tests": [{"dated": "2025-11-25", "term_months": 36}]},
    ),
    *two_sides(
        "a sale begins to count",
        ("2025-11-24 14:00", "E_NO_BASIS"),
        ("2025-11-25 14:00", "OK_RELATIONSHIP"),
        "sale",
        on={"started_on": "2025-11-25", "at": "2025-11-20T12:00:00Z"},
    ),
    (
        "no opt-out, collected by 2021-06-30",
        "OK_RELATIONSHIP",
        call("2025-11-25 14:00", "sale", on={"optout_offered": "none", "collected_on": "2021-06-30"}),
    ),
    (
        "no opt-out, collected on 2021-07-01",
        "E_REL_NO_OPTOUT",
        call("2025-11-25 14:00", "sale", on={"optout_offered": "none", "collected_on": "2021-07-01"}),
    ),
    (
        "no opt-out, collected nobody knows when",
        "E_REL_NO_OPTOUT",
        call("2025-11-25 14:00", "sale", on={"optout_offered": None, "collected_on": None}),
    ),
    (
        "charities were spared nothing",
        "E_REL_NO_OPTOUT",
        call(NOON, "charity", on={"optout_offered": "none", "collected_on": "2021-06-30"}),
    ),
    (
        "readers were spared",
        "OK_PERIODICAL_PUBLISHER",
        call(NOON, "publisher", on={"optout_offered": "none", "collected_on": "2021-06-30"}),
    ),
    ("three issues a year", "OK_PERIODICAL_PUBLISHER", call(NOON, "publisher", advertiser={"issues_per_year": 3})),
    ("two issues a year", "E_EXEMPT_NOT_PERIODICAL E_REL_ABOLISHED", call(NOON, "publisher", advertiser={"issues_per_year": 2})),
    *(
        (f"a licence under article {one}", "OK_LOTTERY_LICENSEE", call(NOON, "lottery", advertiser={"wok_article": one}))
        for one in ("3", "9", "27b")
    ),
    *(
        (
            f"a licence under article {one}",
            "E_EXEMPT_NOT_LICENSED E_REL_ABOLISHED",
            call(NOON, "lottery", advertiser={"wok_article": one}),
        )
        for one in ("27", "31a", None)
    ),
]

_DONATION = {"relationship_id": "r-2", "advertiser_id": "A", "at": "2025-01-01T12:00:00Z", "informed": True, "optout_offered": "spoken"}
RELATIONSHIPS += [
    (
        f"a donor who bought something too, the {kind} first",
        "OK_CHARITY_RELATION",
        call("2026-06-30 14:00", "charity", ("relationships", _DONATION | {"kind": other} | sale), on={"kind": kind}),
    )
    for kind, other, sale in (
        ("purchase", "donation", {}),
        ("donation", "purchase", {"paid": True, "number_given_in_sale": True, "subjects": ["energy"]}),
    )
]

OLD = "2020-02-03 14:00"
OPT_OUT: list[Row] = [
    ("a scrub of 28 days", "OK_OPTOUT_PRE2021", call(OLD, "none", request={"scrubbed_on": "2020-01-06"})),
    ("a scrub of 29 days", "E_BMNR_SCRUB_STALE", call(OLD, "none", request={"scrubbed_on": "2020-01-05"})),
    ("a scrub on the day of the call", "OK_OPTOUT_PRE2021", call(OLD, "none", request={"scrubbed_on": "2020-02-03"})),
    ("no scrub", "E_BMNR_SCRUB_STALE", call(OLD, "none", request={"scrubbed_on": None})),
    ("registered on the day of the call", "E_BMNR", call(OLD, "none", callee={"do_not_call_registered_on": "2020-02-03"})),
    ("registered the day after", "OK_OPTOUT_PRE2021", call(OLD, "none", callee={"do_not_call_registered_on": "2020-02-04"})),
]

POLICIES: list[Row] = [
    ("refused 60 times 24 hours ago", "P_COOLDOWN", call(NOON, "consent", outcome("not_interested", before(NOON, days=60)))),
    ("refused a second longer ago", "OK_CONSENT", call(NOON, "consent", outcome("not_interested", before(NOON, days=60, seconds=1)))),
    ("a silent call 72 hours ago", "P_COOLDOWN", call(NOON, "consent", outcome("silent", before(NOON, hours=72)))),
    ("a silent call a second longer ago", "OK_CONSENT", call(NOON, "consent", outcome("silent", before(NOON, hours=72, seconds=1)))),
    ("an abandoned call 72 hours ago", "P_COOLDOWN", call(NOON, "consent", outcome("abandoned", before(NOON, hours=72)))),
    ("a busy line 72 hours ago is none", "OK_CONSENT", call(NOON, "consent", outcome("busy", before(NOON, hours=72)))),
    ("called at the day's first instant", "P_ATTEMPT_CAP", call(NOON, "consent", outcome("busy", "2026-11-23 00:00"))),
    ("called the evening before", "OK_CONSENT", call(NOON, "consent", outcome("busy", "2026-11-22 23:59:59"))),
    ("called a second ago", "P_ATTEMPT_CAP", call(NOON, "consent", outcome("connected", before(NOON, seconds=1)))),
    ("called at the same instant", "OK_CONSENT", call(NOON, "consent", outcome("busy", before(NOON)))),
    ("called by somebody else today", "OK_CONSENT", call(NOON, "consent", outcome("busy", "2026-11-23 10:00", advertiser_id="I"))),
    ("a share of 3 %", "OK_CONSENT", call(NOON, request={"dialling_mode": "predictive"}, campaign={"abandoned_share_24h": 0.03})),
    (
        "a share of 3.01 %",
        "P_ABANDON_RATE",
        call(NOON, request={"dialling_mode": "predictive"}, campaign={"abandoned_share_24h": 0.0301}),
    ),
    (
        "a share that is unknown",
        "P_ABANDON_RATE",
        call(NOON, request={"dialling_mode": "predictive"}, campaign={"abandoned_share_24h": None}),
    ),
    ("a share of half, dialled by hand", "OK_CONSENT", call(NOON, campaign={"abandoned_share_24h": 0.5})),
    ("a number in use for six months", "OK_CONSENT", call(NOON, caller={"in_use_until": "2027-05-23"})),
    ("a number in use for a day less", "E_CLI_NOT_CALLABLE", call(NOON, caller={"in_use_until": "2027-05-22"})),
]
for _days, _seconds, _want in ((29, 0, "P_ATTEMPT_CAP"), (30, 0, "P_ATTEMPT_CAP"), (30, 1, "OK_CONSENT")):
    _earlier = [outcome("no_answer", before(NOON, days=5)), outcome("busy", before(NOON, days=9))]
    _line = call(NOON, "consent", *_earlier, outcome("no_answer", before(NOON, days=_days, seconds=_seconds)))
    POLICIES.append((f"three unanswered, the first {_days} times 24 hours and {_seconds} s ago", _want, _line))
POLICIES.append(("two unanswered", "OK_CONSENT", call(NOON, "consent", *_earlier)))

ROWS = [*REGIMES, *CODES, *DAYS, *CONSENTS, *INVITATIONS, *RELATIONSHIPS, *OPT_OUT, *POLICIES]


@pytest.mark.parametrize(("want", "line"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_each_side_of_a_border_gets_its_own_answer(want, line):
    answer, is_decision = decide_line(msgspec.json.encode(line), book())
    decision = msgspec.json.decode(answer)
    assert is_decision, decision
    assert (decision["basis"] or " ".join(decision["reasons"])) == want


def test_the_table_is_of_a_size():
    """A row that got lost is noticed, and two rows of one title are not both meant."""
    titles = [row[0] for row in ROWS]
    assert len(titles) > 200
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("instant", "regime"),
    [
        ("2009-09-30T21:59:59Z", None),
        ("2009-09-30T22:00:00Z", "R1"),
        ("2021-06-30T21:59:59Z", "R1"),
        ("2021-06-30T22:00:00Z", "R2"),
        ("2026-06-30T21:59:59Z", "R2"),
        ("2026-06-30T22:00:00Z", "R3"),
    ],
)
def test_regimes_change_at_midnight_in_amsterdam(instant, regime):
    answer, _ = decide_line(msgspec.json.encode(call(instant)), book())
    assert msgspec.json.decode(answer)["regime"] == regime


NOBODY = {"request": {"intermediary_id": "nobody"}}
MISSING = [
    ("the advertiser", ["parties:A"], call(NOON, without=("parties",))),
    ("the advertiser and the intermediary", ["parties:A", "parties:nobody"], call(NOON, without=("parties",), **NOBODY)),
    ("the intermediary", ["parties:nobody"], call(NOON, **NOBODY)),
    ("the campaign", ["campaigns:c-1"], call(NOON, without=("campaigns",))),
    ("the number shown", [f"caller-numbers:{CALLER}"], call(NOON, without=("caller-numbers",))),
    ("a number to show", ["cli.number"], call(NOON, request={"cli": {"withheld": False}})),
    ("the subject", ["subject"], call(NOON, request={"subject": None})),
    ("how promotional a service call is", ["promotion"], call(NOON, "service", request={"promotion": None})),
    ("how promotional research is", ["promotion"], call(NOON, "research", request={"promotion": None})),
    ("whether a service call is necessary", ["service_necessary"], call(NOON, "service", request={"service_necessary": None})),
    (
        "both of a service call",
        ["promotion", "service_necessary"],
        call(NOON, "service", request={"promotion": None, "service_necessary": None}),
    ),
    (
        "everything",
        [f"caller-numbers:{CALLER}", "campaigns:c-1", "parties:A", "subject"],
        call(NOON, "consent", objection(NOON), request={"subject": None}, without=("parties", "campaigns", "caller-numbers")),
    ),
]


@pytest.mark.parametrize(("missing", "line"), [row[1:] for row in MISSING], ids=[row[0] for row in MISSING])
def test_what_lacks_is_named_and_nothing_else_is_said(missing, line):
    decision = msgspec.json.decode(decide_line(msgspec.json.encode(line), book())[0])
    assert decision["reasons"] == ["E_FACTS_INCOMPLETE"]
    assert sorted(decision["missing"]) == missing


@pytest.mark.parametrize(
    "line",
    [
        call(NOON, "service", request={"subject": None}),
        call(NOON, "research", request={"subject": None}),
        call(NOON, request={"cli": {"number": "+31209999999", "withheld": True}}),
        call(NOON, request={"call_centre_id": "nobody"}),
    ],
    ids=["a service call's subject", "research's subject", "a withheld number", "a call centre"],
)
def test_what_need_not_be_on_file_is_not_missed(line):
    decision = msgspec.json.decode(decide_line(msgspec.json.encode(line), book())[0])
    assert "E_FACTS_INCOMPLETE" not in decision["reasons"]
    assert decision["missing"] == []


# --- the clock and the request's own time --------------------------------------------------------------------------------------------


def decide_at(now: str, line: Value) -> Decision:
    """Decide about a line as the stream would, at an instant of its own."""
    facts, reference = NumberFacts(), Reference()
    for fact in line["facts"]:
        record = validate(fact["topic"], fact["value"])
        if fact["topic"] in REFERENCE_MODELS:
            reference.put(fact["topic"], cast("ReferenceEntry", record))
        else:
            facts.apply(cast("NumberEvent", record))
    request = cast("CallRequest", validate(REQUEST_TOPIC, line["request"]))
    return decide(request, facts, reference, book(), parse_instant(rfc(clock(now))))


@pytest.mark.parametrize(
    ("now", "dial_at", "want"),
    [
        ("2026-11-23 14:02:00", "2026-11-23 14:00:00", "OK_CONSENT"),
        ("2026-11-23 14:02:01", "2026-11-23 14:00:00", "S_REQUEST_EXPIRED"),
        ("2026-11-23 14:00:00", "2026-11-23 14:15:00", "OK_CONSENT"),
        ("2026-11-23 14:00:00", "2026-11-23 14:15:01", "S_DIAL_TOO_FAR"),
        ("2026-11-23 22:00:00", "2026-11-23 21:59:30", "E_TIME_WINDOW"),
        ("2026-11-23 08:59:00", "2026-11-23 09:00:00", "OK_CONSENT"),
        ("2026-11-23 21:59:00", "2026-11-23 22:00:00", "E_TIME_WINDOW"),
        ("2026-11-24 00:01:00", "2026-11-23 23:59:30", "E_TIME_WINDOW"),
    ],
)
def test_a_call_is_judged_at_the_later_of_now_and_dial_at(now, dial_at, want):
    decision = decide_at(now, call(dial_at))
    assert (decision.basis or " ".join(decision.reasons)) == want


SUNDAY = "2026-11-22 12:14:30"


@pytest.mark.parametrize(
    ("title", "line", "seconds"),
    [
        ("a minute", call(NOON), 60),
        ("until ten in the evening", call("2026-11-23 21:59:30"), 30),
        ("until four on Saturday", call("2026-11-28 15:59:15"), 45),
        ("until half past six on 5 December", call("2025-12-05 18:29:50"), 10),
        ("until nine for a service call", call("2026-11-23 20:59:30", "service"), 30),
        ("until the consent's last midnight", call("2026-11-23 23:59:30", number=SWISS, on={"valid_until": "2026-11-23"}), 30),
        ("a minute across midnight", call("2026-11-23 23:59:30", number=SWISS), 60),
        ("until the regime's last midnight", call("2026-06-30 23:59:30", "sale", number=SWISS), 30),
        ("a minute of research at any hour", call("2026-11-23 21:59:30", "research"), 60),
        (
            "a minute at an agreed time on a foreign number",
            call(SUNDAY, "invited", number=SWISS, on={"agreed_at": "2026-11-22T11:00:00Z"}),
            60,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_approval_holds_for(title, line, seconds):
    """min(J + 60 s, end of the calling window, end of the basis)."""
    decision = decide_at(line["request"]["dial_at"], line)
    assert decision.approved, decision.reasons
    assert parse_instant(cast("str", decision.valid_until)) - parse_instant(line["request"]["dial_at"]) == seconds * 1_000_000


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (call(SUNDAY, "invited", on={"agreed_at": "2026-11-22T11:00:00Z"}), 30),
        (call(NOON, "invited", on={"at": before(NOON, days=29, hours=23, minutes=59, seconds=30)}), 30),
    ],
    ids=["the quarter of an hour after the agreed time", "the thirty days of an invitation"],
)
def test_an_approval_ends_with_the_last_good_instant(line, seconds):
    """The last instant itself is good still, and valid_until is exclusive."""
    decision = decide_at(line["request"]["dial_at"], line)
    assert decision.approved, decision.reasons
    left = parse_instant(cast("str", decision.valid_until)) - parse_instant(line["request"]["dial_at"])
    assert seconds * 1_000_000 <= left <= seconds * 1_000_000 + 1
