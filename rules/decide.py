"""The decision procedure for one call request: pure, synchronous, handed the time.

Step 0 missing facts; 1 the number shown, for any call; 2 what kind of call it is; 3 gates for all telemarketing; 4 invitations;
5 objections; 6 the basis; 7 conduct; 8 policy. Every code that applies is reported.
"""

from __future__ import annotations

from datetime import date

from rules import basis, caller_number, calling_hours, invitations, lifting, policy
from rules.call import Call
from rules.calling_side import CallingSide, calling_side
from rules.decision import Decision, approved, blocked
from rules.errors import RulebookGap
from rules.facts import NumberFacts
from rules.findings import Candidate, Finding, Findings
from rules.instants import SECOND, end_of_day, local_clock
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import LawOfDay, Rulebook

_OBJECTION_OFFER_RULES = ("C-15", "O-03")


def decide(
    request: CallRequest,
    facts: NumberFacts,
    reference: Reference,
    book: Rulebook,
    now: int,
    as_of: dict[str, int] | None = None,
    *,
    findings: Findings | None = None,
) -> Decision:
    """Decide about one call.

    Args:
        request: the dialler's question.
        facts: all that is known about the request's number.
        reference: parties, campaigns and caller numbers on file.
        book: the dated rulebook.
        now: instant of the decision; the call is judged at J = max(dial_at, now).
        as_of: next offset of each topic that ``facts`` and ``reference`` stand for; empty at the offline door.
        findings: takes what is found, for whoever wants to know afterwards which rule and which facts gave each code; empty.

    Returns:
        The decision. It never raises for want of facts or law: a day that no rulebook covers is blocked S_STATE_UNAVAILABLE.
    """
    applied = as_of or {}
    findings = Findings() if findings is None else findings
    instant = max(request.dial_at, now)
    day, since_midnight = local_clock(instant)
    try:
        law = book.on(date.fromordinal(day), member=reference.is_member(request.responsible_id))
    except RulebookGap:
        return refuse(request, book, "S_STATE_UNAVAILABLE", now, applied)
    _report_system_codes(request, facts, law, now, findings)
    side = calling_side(request, reference, law)
    missing = side.once(_missing)
    if missing:
        findings.codes.add("E_FACTS_INCOMPLETE")
        return blocked(request, book, findings=findings, warnings=[], missing=[*missing], regime=law.regime, now=now, as_of=applied)
    call = Call(request, side, facts, reference, law, instant, day, since_midnight, side.responsible, facts.callee())
    warnings = ["W_LEGALFORM_ASSUMED_NP"] if call.legal_form == "unknown" else []
    caller_number.report_false(call, findings)
    found, window_closes = _judge(call, findings, warnings)
    if findings.codes or found is None:
        return blocked(request, book, findings=findings, warnings=warnings, missing=[], regime=law.regime, now=now, as_of=applied)
    expires = instant + law.parameters.approval_ttl_s * SECOND
    ends = [expires, window_closes, found.ends_at, _law_changes_at(call, book, expires)]
    support = Findings(rules=set(found.rules), evidence=set(found.event_ids))
    return approved(
        request,
        book,
        basis=found.basis,
        findings=support,
        warnings=warnings,
        regime=law.regime,
        now=now,
        valid_until=min(end for end in ends if end is not None),
        as_of=applied,
    )


def _law_changes_at(call: Call, book: Rulebook, expires: int) -> int | None:
    """The midnight after the call, if an approval would reach beyond it into a day on which other law binds; else None."""
    midnight = end_of_day(call.day)
    if expires <= midnight:
        return None
    law, tomorrow = call.law, book.on(date.fromordinal(call.day + 1), member=call.responsible.ddma_member is True)
    same = (tomorrow.regime, tomorrow.rules, tomorrow.parameters) == (law.regime, law.rules, law.parameters)
    return None if same else midnight


def refuse(request: CallRequest, book: Rulebook, code: str, now: int, as_of: dict[str, int] | None = None) -> Decision:
    """Block a call for a reason of the guard's own, with an S_ code and without looking at the facts."""
    findings = Findings(codes={code})
    try:
        regime = book.on(date.fromordinal(local_clock(max(request.dial_at, now))[0]), member=False).regime
    except RulebookGap:
        regime = None
    return blocked(request, book, findings=findings, warnings=[], missing=[], regime=regime, now=now, as_of=as_of or {})


def _report_system_codes(request: CallRequest, facts: NumberFacts, law: LawOfDay, now: int, findings: Findings) -> None:
    if now - request.dial_at > law.parameters.max_request_age_s * SECOND:
        findings.codes.add("S_REQUEST_EXPIRED")
    if request.dial_at - now > law.parameters.max_dial_ahead_s * SECOND:
        findings.codes.add("S_DIAL_TOO_FAR")
    if facts.quarantined:
        findings.codes.add("S_QUARANTINED")


def _missing(side: CallingSide) -> list[str]:
    """What a decision cannot do without, as ``topic:key`` or field, sorted."""
    missing, reference, cli = set[str](), side.reference, side.cli
    for party_id in (side.advertiser_id, side.intermediary_id):
        if party_id is not None and party_id not in reference.parties:
            missing.add(f"parties:{party_id}")
    if side.campaign_id not in reference.campaigns:
        missing.add(f"campaigns:{side.campaign_id}")
    if not cli.withheld:
        if cli.number is None:
            missing.add("cli.number")
        elif cli.number not in reference.caller_numbers:
            missing.add(f"caller-numbers:{cli.number}")
    if side.purpose in ("service", "research"):
        if side.promotion is None:
            missing.add("promotion")
    elif not side.has_subject:
        missing.add("subject")
    if side.purpose == "service" and side.service_necessary is None:
        missing.add("service_necessary")
    return sorted(missing)


def _judge(call: Call, findings: Findings, warnings: list[str]) -> tuple[Candidate | None, int | None]:
    """Classify the call and judge it as what it is. Returns the basis, if there is one, and the end of the calling window."""
    request = call.request
    if request.purpose == "research" and request.promotion == "none":
        return Candidate((), "OK_NOT_TELEMARKETING", ("S-06" if "S-06" in call.law else "S-01",)), None
    if request.purpose == "service" and request.service_necessary and request.promotion in ("none", "incidental"):
        return _judge_service(call, findings, warnings)
    return _judge_telemarketing(call, findings)


def _judge_service(call: Call, findings: Findings, warnings: list[str]) -> tuple[Candidate | None, int | None]:
    """A message necessarily tied to the product (S-07); a light tint of promotion is borne only by who has not objected (S-09)."""
    tinted = call.request.promotion == "incidental"
    if tinted and lifting.report_standing(call, findings):
        # It counts as telemarketing now, and no basis is sought against an objection.
        caller_number.report_withheld(call, findings)
        return None, _judge_conduct(call, findings, waived_until=None)
    if tinted:
        warnings.insert(0, "W_SERVICE_TINT")
    rules = ("S-07", "S-09") if tinted and "S-09" in call.law else ("S-07",)
    return Candidate((), "OK_SERVICE", rules), calling_hours.report_service(call, findings)


def _judge_telemarketing(call: Call, findings: Findings) -> tuple[Candidate | None, int | None]:
    caller_number.report_withheld(call, findings)
    invited = invitations.candidates(call)
    accepted = invitations.best(call, invited)
    if accepted is not None:
        invitation, found = accepted
        return found, _judge_conduct(call, findings, invitations.agreed_until(call, invitation))
    lifting.report_standing(call, findings)
    basis_found = basis.seek(call, findings)
    if basis_found is None:
        findings.add_all(call.side.once(_failed_claims))
        findings.add_failures(candidate for _, candidate in invited)
    return basis_found, _judge_conduct(call, findings, waived_until=None)


def _failed_claims(side: CallingSide) -> list[Finding]:
    """What a call that claims to be a service call lacks."""
    found = list[Finding]()
    if side.purpose == "service" and not side.service_necessary:
        found.append(("E_SERVICE_NOT_NECESSARY", "S-07"))
    if side.purpose == "service" and side.promotion in ("material", "dominant"):
        found.append(("E_SERVICE_PROMOTIONAL", "S-07"))
    return found


def _objection_not_offered(side: CallingSide) -> list[Finding]:
    rule_id = next((rule for rule in _OBJECTION_OFFER_RULES if rule in side.law), None)
    lacks = rule_id is not None and side.campaign.objection_offered is not True
    return [("E_OBJECTION_OFFER_MISSING", str(rule_id))] if lacks else []


def _judge_conduct(call: Call, findings: Findings, waived_until: int | None) -> int | None:
    """What every telemarketing call keeps to, whatever its basis. Returns the end of the calling window."""
    findings.add_all(call.side.once(_objection_not_offered))
    caller_number.report_unreachable(call, findings)
    callee = call.callee
    if "K-03" in call.law and callee is not None:
        young = callee.age is not None and callee.age <= call.law.parameters.minor_age_max
        if young or callee.age_suspected_minor:
            findings.add("E_MINOR", "K-03", call.callee_evidence())
    closes = calling_hours.report_telemarketing(call, findings, waived_until)
    policy.report(call, findings)
    return closes
