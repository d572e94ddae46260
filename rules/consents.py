"""Consent: rules C-01 to C-17 and the burden of proof, B-02 and B-03.

A consent that names a party is a candidate for that party's calls and reports every condition that it fails. Conditions apply by the
day of the call, not of the consent; the responsible party's membership decides when a code binds.
"""

from __future__ import annotations

from rules.call import Call
from rules.findings import Candidate, Finding
from rules.instants import add_months, end_of_day, local_day
from rules.objections import withdrawn_since
from rules.records import CONNECTED_RESULTS, Consent
from rules.subjects import covered

# What the way of asking does to a consent: rules that refuse it, with the code. The first rule in force gives the code.
_REFUSED_CAPTURES: dict[str, tuple[tuple[str, ...], str]] = {
    "preticked_box": (("C-03", "C-02"), "E_CONSENT_PRETICKED"),
    "terms": (("C-07",), "E_CONSENT_HIDDEN"),
    "bundled_clause": (("C-06",), "E_CONSENT_BUNDLED"),
    "combined_tick": (("C-08",), "E_CONSENT_CHANNEL"),
    "purchased_list": (("B-03",), "E_CONSENT_UNPROVEN"),
}


def candidates(call: Call) -> list[Candidate]:
    """The consents that name the responsible party; where there are others only, one candidate that failed for not naming it."""
    consents = call.facts.consents
    named = [judge(call, consent, call.responsible_id) for consent in consents if call.responsible_id in consent.party_ids]
    if named or not consents:
        return named
    rule_id = "C-04" if "C-04" in call.law else "P-02"
    others = tuple(consent.event_id for consent in consents)
    return [Candidate(others, failures=[("E_CONSENT_NOT_NAMED", rule_id)])]


def judge(call: Call, consent: Consent, party_id: str) -> Candidate:
    """Judge a consent as the basis of a call for one of the parties that it names.

    Args:
        call: the call under judgement.
        consent: a consent that names ``party_id``.
        party_id: the responsible party, or the other party of the chain where its objection is to be lifted.

    Source: Telecommunicatiewet art. 11.7(1)-(2), V1; GDPR arts. 4(11) and 7, V1; Code Telemarketing 2024, V2.
    """
    law, failures = call.law, list[Finding]()
    if consent.at >= call.instant:
        failures.append(("E_CONSENT_NOT_PRIOR", "C-01"))
    if withdrawn_since(call, consent.at, party_id):
        failures.append(("E_CONSENT_WITHDRAWN", "C-13"))
    refusal = _REFUSED_CAPTURES.get(consent.capture)
    if refusal is not None:
        rule_ids, code = refusal
        failures += [(code, rule_id) for rule_id in rule_ids if rule_id in law][:1]
    if not consent.telephone:
        failures.append(("E_CONSENT_CHANNEL", "C-08"))
    if not covered(call.request.subject, consent.subjects):
        failures.append(("E_CONSENT_SUBJECT", "C-05"))
    if consent.valid_until is not None and call.day > consent.valid_until:
        failures.append(("E_CONSENT_EXPIRED_OWN_TERMS", "C-10"))
    failures += _proof_failures(call, consent)
    if "C-16" in law and consent.giver_age is not None and consent.giver_age < law.parameters.consent_giver_age_min:
        failures.append(("E_MINOR", "C-16"))
    last_first_contact = _last_day_of_first_contact(call, consent, party_id)
    if last_first_contact is not None and call.day > last_first_contact:
        failures.append(("E_CONSENT_FIRST_CONTACT_LATE", "C-11"))
    last_days = [day for day in (consent.valid_until, last_first_contact) if day is not None]
    return Candidate(
        (consent.event_id,),
        basis="OK_CONSENT",
        rules=("B-01",) if "B-01" in law else ("S-03",) if call.automated else ("P-02",),
        failures=failures,
        ends_at=end_of_day(min(last_days)) if last_days and not failures else None,
    )


def _proof_failures(call: Call, consent: Consent) -> list[Finding]:
    """Proof: complete evidence, a giver who is the person called, and a check that it was this person."""
    law, failures = call.law, list[Finding]()
    if "B-02" in law and not consent.proven:
        failures.append(("E_CONSENT_UNPROVEN", "B-02"))
    if "B-03" in law and not _given_by_the_person_called(call, consent):
        failures.append(("E_CONSENT_UNPROVEN", "B-03"))
    if "D-03" in law and call.callee is not None and call.callee.deceased:
        failures.append(("E_CONSENT_UNPROVEN", "D-03"))
    if "C-12" in law and not consent.verified:
        failures.append(("E_CONSENT_UNVERIFIED", "C-12"))
    return failures


def _given_by_the_person_called(call: Call, consent: Consent) -> bool:
    called = set(call.callee.person_refs) if call.callee is not None else set()
    if call.request.person_ref is not None:
        called.add(call.request.person_ref)
    return consent.person_ref is not None and called <= {consent.person_ref}


def _last_day_of_first_contact(call: Call, consent: Consent, party_id: str) -> int | None:
    """Last day on which the call may still come if nobody has spoken to the person yet (C-11); a day past if they did so too late.

    First contact is the party's first connected outcome after the consent. None: no limit, or the first contact was in time.
    """
    if "C-11" not in call.law:
        return None
    months = consent.first_contact_months
    if months is None:
        months = call.law.parameters.consent_first_contact_months
    last_day = add_months(local_day(consent.at), months)
    contacts = [
        outcome.at
        for outcome in call.facts.outcomes
        if outcome.result in CONNECTED_RESULTS and outcome.responsible_id == party_id and consent.at < outcome.at < call.instant
    ]
    if contacts and local_day(min(contacts)) <= last_day:
        return None
    return last_day
