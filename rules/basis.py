"""The basis that a telemarketing call leans on: the first good candidate in the order of the procedure, or what every candidate lacks.

Order: legal person (S-04), number published for marketing (S-11), professional outside the EEA (S-13), opt-out before 2021-07-01 (L-),
consent (C-), relationship (H-, X-, R-). Invitations come before all of them and are judged in ``rules.invitations``.
"""

from __future__ import annotations

from rules import consents, optout, relationships
from rules.call import Call
from rules.findings import Candidate, Findings
from rules.subjects import covered


def seek(call: Call, findings: Findings) -> Candidate | None:
    """Find the basis of the call, or report why there is none.

    Returns:
        The good candidate; None where the reasons have been added to ``findings``.
    """
    if call.automated:
        return _consent_of_the_end_user(call, findings)
    found = _status_basis(call)
    if found is not None:
        return found
    judged = _candidates(call)
    good = [candidate for candidate in judged if candidate.good]
    if good:
        # Of several good ones of the same kind the one that holds longest, so that an approval does not end before it must.
        first = good[0].basis
        return max((one for one in good if one.basis == first), key=lambda one: (one.ends_at is None, one.ends_at or 0))
    findings.add_failures(judged)
    if call.by_intermediary:
        findings.add("E_INTERMEDIARY_BASIS", "P-02")
    elif not judged:
        findings.add("E_NO_BASIS", "B-01")
    return None


def _consent_of_the_end_user(call: Call, findings: Findings) -> Candidate | None:
    """A machine that speaks needs the consent of whoever is called, a legal person too (S-03); one code stands for the whole step."""
    judged = consents.candidates(call)
    good = [candidate for candidate in judged if candidate.good]
    if good:
        return max(good, key=lambda one: (one.ends_at is None, one.ends_at or 0))
    findings.add("E_AUTOMATED_NO_CONSENT", "S-03", (event_id for one in judged for event_id in one.event_ids))
    return None


def _status_basis(call: Call) -> Candidate | None:
    """A basis that lies in who is called, with no candidate to fail."""
    who = tuple(call.callee_evidence())
    if not call.natural_person:
        return Candidate(who, "OK_LEGAL_ENTITY", ("S-04",))
    if call.callee is None or not call.in_business:
        return None
    published = call.callee.published
    if (
        "S-11" in call.law
        and published is not None
        and published.at < call.instant
        and covered(call.request.subject, published.subjects)
    ):
        return Candidate(who, "OK_PUBLISHED_FOR_MARKETING", ("S-11",))
    country = call.callee.country
    outside = country is not None and country not in call.law.parameters.eea_countries
    if "S-13" in call.law and outside and call.callee.local_rules_met:
        return Candidate(who, "OK_NON_EEA_PROFESSIONAL", ("S-13",))
    return None


def _candidates(call: Call) -> list[Candidate]:
    if call.law.regime == "R1" and not call.by_intermediary:
        return optout.judge(call, relationships.candidates(call))
    return consents.candidates(call) + relationships.candidates(call)
