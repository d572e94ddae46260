"""Which objections and withdrawals still stand against a call (rule O-10).

Each party of the chain that one of them reaches needs its own good consent, later than all of them; at the same instant the objection
wins.
"""

from __future__ import annotations

from rules import consents, objections
from rules.call import Call
from rules.findings import Findings


def report_standing(call: Call, findings: Findings) -> bool:
    """Report the objections and withdrawals that no later consent has lifted. Returns whether there are any."""
    standing = False
    for party_id in call.chain:
        objected = objections.reaching(call, party_id)
        withdrawn = objections.withdrawals_reaching(call, party_id)
        if not objected and not withdrawn:
            continue
        lifted_at = _lifted_at(call, party_id)
        still_objected = [objection for objection in objected if lifted_at is None or objection.at >= lifted_at]
        still_withdrawn = [event_id for at, event_id in withdrawn if lifted_at is None or at >= lifted_at]
        if still_objected:
            findings.add("E_OBJECTION", "O-01", objections.evidence(still_objected))
        if still_withdrawn:
            findings.add("E_CONSENT_WITHDRAWN", "C-13", still_withdrawn)
        standing = standing or bool(still_objected or still_withdrawn)
    return standing


def _lifted_at(call: Call, party_id: str) -> int | None:
    """Instant of the newest good consent that names the party."""
    good = [
        consent.at for consent in call.facts.consents if party_id in consent.party_ids and consents.judge(call, consent, party_id).good
    ]
    return max(good, default=None)
