"""Before 2021-07-01: anybody may be called who has not objected and is not in the do-not-call register (rules L-01 to L-04)."""

from __future__ import annotations

from rules.call import Call
from rules.findings import Candidate, Finding
from rules.instants import end_of_day


def judge(call: Call, relationships: list[Candidate]) -> list[Candidate]:
    """The opt-out as the basis of an advertiser's call to a natural person.

    Args:
        call: the call under judgement, in regime R1.
        relationships: the judged relationships of the number; a good one lifts the register (L-04).

    Returns:
        Candidates, the opt-out first. If it fails, E_BMNR and E_BMNR_SCRUB_STALE stand for it.

    Source: Telecommunicatiewet (2015) art. 11.7(5), (9)-(11), V1; Besluit bel-me-niet-register art. 13, V1.
    """
    failures = list[Finding]()
    registered_on = call.callee.registered_on if call.callee is not None else None
    registered = registered_on is not None and registered_on <= call.day
    if registered:
        failures.append(("E_BMNR", "L-01"))
    scrubbed_on = call.request.scrubbed_on
    fresh_until = None if scrubbed_on is None else scrubbed_on + call.law.parameters.scrub_validity_days
    if scrubbed_on is None or fresh_until is None or not scrubbed_on <= call.day <= fresh_until:
        failures.append(("E_BMNR_SCRUB_STALE", "L-02" if scrubbed_on is None else "L-03"))
    opt_out = Candidate(
        tuple(call.callee_evidence()) if registered else (),
        "OK_OPTOUT_PRE2021",
        ("L-01", "L-03"),
        failures,
        None if fresh_until is None else end_of_day(fresh_until),
    )
    return [opt_out, *relationships]
