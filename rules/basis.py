"""The basis that a telemarketing call leans on: the first good candidate in the order of the procedure, or what every candidate lacks.

Order: legal person (S-04), number published for marketing (S-11), professional outside the EEA (S-13), opt-out before 2021-07-01 (L-),
consent (C-), relationship (H-, X-, R-). Invitations come before all of them and are judged in ``rules.invitations``.
"""

from __future__ import annotations

from rules import consents, optout, relationships
from rules.call import Call
from rules.findings import Candidate, Findings, longest
from rules.subjects import covered

#: In which order of several good candidates the basis is named.
_PRECEDENCE = (
    "OK_OPTOUT_PRE2021",
    "OK_OWN_CUSTOMER_PRE2021",
    "OK_CONSENT",
    "OK_CHARITY_RELATION",
    "OK_PERIODICAL_PUBLISHER",
    "OK_LOTTERY_LICENSEE",
    "OK_RELATIONSHIP",
)


def seek(call: Call, findings: Findings) -> Candidate | None:
    """Find the basis of the call, or report why there is none.

    Returns:
        The candidate that the call leans on; None where what every candidate lacks has been added to ``findings``.
    """
    if call.automated:
        # A machine that speaks needs the consent of whoever is called, a legal person too (S-03); one code stands for the whole step.
        judged = consents.candidates(call)
        found = _strongest(judged, findings)
        if found is None:
            findings.add("E_AUTOMATED_NO_CONSENT", "S-03", (event_id for one in judged for event_id in one.event_ids))
        return found
    found = _status_basis(call)
    if found is not None:
        return found
    judged = _candidates(call)
    found = _strongest(judged, findings)
    if found is None:
        findings.add_failures(judged)
        if call.by_intermediary:
            findings.add("E_INTERMEDIARY_BASIS", "P-02")
        elif not judged:
            findings.add("E_NO_BASIS", "B-01")
    return found


def _strongest(judged: list[Candidate], findings: Findings) -> Candidate | None:
    """The good candidate that comes first in the procedure, of several of its kind the one that holds longest.

    A consent that lacks nothing but was withdrawn still counts as a candidate: the withdrawal is reported and blocks, and what others
    lack is not looked for.
    """
    good = [candidate for candidate in judged if candidate.good]
    if good:
        first = min((one.basis for one in good), key=_PRECEDENCE.index)
        return longest(one for one in good if one.basis == first)
    withdrawn = [one for one in judged if all(code == "E_CONSENT_WITHDRAWN" for code, _ in one.failures)]
    findings.add_failures(withdrawn)
    return withdrawn[0] if withdrawn else None


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
