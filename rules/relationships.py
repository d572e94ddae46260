"""Relationships as a basis: customers (R-01 to R-14), donors and volunteers (H-01 to H-07), publishers and lotteries (X-01 to X-03).

A relationship of the responsible party, or of a party of the same brand, is a candidate. Which conditions it meets depends on the day
and on what kind of organisation calls:

* before 2021-07-01 it lifts the do-not-call register (L-04, ``rules.optout``);
* an ideal or charitable organisation rests on donations, volunteering and events (H-), in its own purposes;
* until 2026-06-30 anybody rests on a sale (R-); from 2026-07-01 only publishers of periodicals and lottery licensees do (X-).

An intermediary's call rests on no relationship at all (P-02).
"""

from __future__ import annotations

from collections.abc import Iterable

from rules.call import Call
from rules.calling_side import CallingSide
from rules.findings import Candidate, Finding
from rules.instants import add_months, end_of_day
from rules.records import LINK_KINDS, SALE_KINDS, Relationship
from rules.subjects import covered


def candidates(call: Call) -> list[Candidate]:
    """Judge every relationship that counts on the day of the call."""
    if call.by_intermediary:
        return []
    found = []
    for version in call.facts.versions():
        if version.started_on is not None and version.started_on > call.day:
            continue
        if version.advertiser_id == call.responsible_id:
            candidate = _own(call, version)
        elif version.advertiser_id is not None and call.reference.same_brand(call.responsible_id, version.advertiser_id):
            candidate = Candidate((), failures=[_other_entity(call)])
        else:
            continue
        candidate.event_ids = tuple(
            fact.event_id for fact in call.facts.relationships if fact.relationship_id == version.relationship_id
        )
        found.append(candidate)
    return found


def _own(call: Call, version: Relationship) -> Candidate:
    if call.law.regime == "R1":
        return _own_customer(call, version)
    if call.side.once(_charitable) and (version.kind in LINK_KINDS or version.kind not in SALE_KINDS):
        return _charity_link(call, version)
    if "R-14" not in call.law:
        return _sale(call, version, "OK_RELATIONSHIP", ("R-07",))
    for basis, rule_id in call.side.once(_exemptions):
        return _sale(call, version, basis, (rule_id, "X-03"))
    failures: list[Finding] = [("E_REL_ABOLISHED", "R-14")]
    kinds = call.responsible.kinds or ()
    if "periodical_publisher" in kinds:
        failures.append(("E_EXEMPT_NOT_PERIODICAL", "X-01"))
    if "lottery_licensee" in kinds:
        failures.append(("E_EXEMPT_NOT_LICENSED", "X-02"))
    if call.side.once(_charitable):
        failures.append(("E_CHARITY_NO_LINK", "H-07"))
    return Candidate((), failures=failures)


def _other_entity(call: Call) -> Finding:
    if call.side.once(_charitable):
        return "E_CHARITY_NO_LINK", "H-01"
    if "R-14" in call.law and not call.side.once(_exemptions):
        return "E_REL_ABOLISHED", "R-14"
    return "E_REL_OTHER_ENTITY", "R-02" if "R-02" in call.law else "L-04"


def _charitable(side: CallingSide) -> bool:
    return "H-01" in side.law and "ideal_or_charitable" in (side.responsible.kinds or ())


def _exemptions(side: CallingSide) -> list[tuple[str, str]]:
    """Basis and rule of each exemption that the responsible party enjoys from 2026-07-01 (art. 11.7(6))."""
    party, parameters = side.responsible, side.law.parameters
    kinds = party.kinds or ()
    found = []
    if "periodical_publisher" in kinds and (party.issues_per_year or 0) >= parameters.periodical_issues_min:
        found.append(("OK_PERIODICAL_PUBLISHER", "X-01"))
    if "lottery_licensee" in kinds and party.wok_article in parameters.lottery_articles:
        found.append(("OK_LOTTERY_LICENSEE", "X-02"))
    return found


def _sale(call: Call, version: Relationship, basis: str, rules: tuple[str, ...]) -> Candidate:
    """The five conditions of a customer relationship and its term (R-01 to R-10)."""
    failures = list[Finding]()
    if not _transaction(version):
        failures.append(("E_REL_NO_TRANSACTION", "R-01"))
    if not version.informed:
        failures.append(("E_REL_NOT_INFORMED", "R-03"))
    if not version.optout_at_collection and not _grandfathered(call, version):
        failures.append(("E_REL_NO_OPTOUT", "R-04"))
    failures += _similarity_failures(call, version)
    term_failures, ends_at = _term(call, version)
    return Candidate((), basis, rules, failures + term_failures, ends_at)


def _own_customer(call: Call, version: Relationship) -> Candidate:
    """Before 2021-07-01: the number came from a sale or donation and the offer is the party's own and similar (L-04)."""
    failures = list[Finding]()
    donated = version.kind == "donation" and version.number_given_in_sale
    if not _transaction(version) and not donated:
        failures.append(("E_REL_NO_TRANSACTION", "L-04"))
    failures += _similarity_failures(call, version)
    term_failures, ends_at = _term(call, version)
    return Candidate((), "OK_OWN_CUSTOMER_PRE2021", ("L-04",), failures + term_failures, ends_at)


def _charity_link(call: Call, version: Relationship) -> Candidate:
    """A donation, volunteering or attended event of that organisation, used for its own purposes (H-01 to H-06)."""
    failures = list[Finding]()
    if version.kind not in LINK_KINDS:
        failures.append(("E_CHARITY_NO_LINK", "H-05" if version.kind == "petition" else "H-01"))
    elif version.kind == "event_attendance" and not version.rationale:
        failures.append(("E_CHARITY_NO_LINK", "H-06"))
    if call.request.purpose not in ("ideal", "charitable") or call.request.own_offer is not True:
        failures.append(("E_CHARITY_NOT_OWN_PURPOSE", "H-02"))
    if not version.informed:
        failures.append(("E_REL_NOT_INFORMED", "R-03"))
    spared = call.law.parameters.charity_grandfathering and _grandfathered(call, version)
    if not version.optout_at_collection and not spared:
        failures.append(("E_REL_NO_OPTOUT", "H-03"))
    term_failures, ends_at = _term(call, version)
    return Candidate((), "OK_CHARITY_RELATION", ("H-01",), failures + term_failures, ends_at)


def _transaction(version: Relationship) -> bool:
    """A duty to pay arose together with giving the number; a trial counts if it was paid (R-01)."""
    return (version.kind in SALE_KINDS or version.kind == "trial") and version.paid and version.number_given_in_sale


def _similarity_failures(call: Call, version: Relationship) -> list[Finding]:
    if call.request.own_offer is True and covered(call.request.subject, version.subjects):
        return []
    return [("E_REL_NOT_SIMILAR", "R-05")]


def _grandfathered(call: Call, version: Relationship) -> bool:
    """Collected before the opt-out at collection was asked for (R-13, Telecommunicatiewet art. 20.7)."""
    before = call.law.parameters.grandfathered_before.toordinal()
    return "R-13" in call.law and version.collected_on is not None and version.collected_on < before


def _term(call: Call, version: Relationship) -> tuple[list[Finding], int | None]:
    """The customer term: at most three years after the end, or as the committee advised, and within the balance test's term.

    A relationship that still runs has no term, but needs the test.

    Returns:
        What failed, and the first instant after the term (None while the relationship has no end).
    """
    cap, test_term = call.side.once(_term_months)
    last_days = []
    if cap is not None and version.ended_on is not None:
        last_days.append(_last_day(call, version.ended_on, cap))
        if call.day > last_days[0]:
            return [("E_REL_TERM_EXCEEDED", "R-08")], None
    if "R-09" in call.law:
        if test_term is None:
            return [("E_REL_NO_BALANCE_TEST", "R-09")], None
        if version.ended_on is not None:
            last_days.append(_last_day(call, version.ended_on, test_term))
            if call.day > last_days[-1]:
                return [("E_REL_BALANCE_TERM_EXCEEDED", "R-09")], None
    return [], end_of_day(min(last_days)) if last_days else None


def _term_months(side: CallingSide) -> tuple[int | None, int | None]:
    """The months of the customer term and of the balance test that hold for the responsible party; None where there are none.

    Tests and advice count from the day after their date, and the newest holds; of equal ones the shorter.
    """
    party, day = side.responsible, side.law.day.toordinal()
    cap = side.law.parameters.customer_term_max_months if "R-08" in side.law else None
    test_term = _newest((test.dated, test.term_months) for test in party.balance_tests or () if test.dated < day)
    advised = _newest((one.advised_on, one.months) for one in party.term_extensions or () if one.advised_on < day)
    if "R-10" in side.law and advised is not None:
        return advised, advised if test_term is not None else None
    return cap, test_term


def _newest(dated: Iterable[tuple[int, int | None]]) -> int | None:
    """The months of the newest entry, of equally new ones the fewest; None if there is no entry, or a newest one without months."""
    entries = list(dated)
    newest = max((day for day, _ in entries), default=None)
    months = [months for day, months in entries if day == newest]
    return min((value for value in months if value is not None), default=None) if None not in months else None


def _last_day(call: Call, ended_on: int, months: int) -> int:
    last_day = add_months(ended_on, months)
    return last_day if call.law.parameters.anniversary_inclusive else last_day - 1
