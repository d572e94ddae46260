"""Invitations: the call that a person asked for (rules Q-01 to Q-07). One invitation carries one connected call."""

from __future__ import annotations

from rules.call import Call
from rules.findings import Candidate, Finding, longest
from rules.instants import DAY, MINUTE
from rules.objections import stopped_since
from rules.records import CONNECTED_RESULTS, Invitation
from rules.subjects import covers


def candidates(call: Call) -> list[tuple[Invitation, Candidate]]:
    """The invitations made before the call to the responsible party, or to nobody by name, that no later objection has voided.

    An invitation to another party is not looked at, and an automated voice never rests on one.
    """
    if call.automated:
        return []
    return [
        (invitation, _judge(call, invitation))
        for invitation in call.facts.invitations
        if invitation.at < call.instant
        and invitation.party_id in (None, "", call.responsible_id)
        and not stopped_since(call, invitation.at)
    ]


def best(call: Call, judged: list[tuple[Invitation, Candidate]]) -> tuple[Invitation, Candidate] | None:
    """The invitation that a call rests on: one whose agreed time is now before others, then the one that holds longest."""
    good = {candidate.event_ids: (invitation, candidate) for invitation, candidate in judged if candidate.good}
    agreed = [candidate for invitation, candidate in good.values() if agreed_until(call, invitation) is not None]
    chosen = agreed or [candidate for _, candidate in good.values()]
    return good[longest(chosen).event_ids] if chosen else None


def _judge(call: Call, invitation: Invitation) -> Candidate:
    failures = list[Finding]()
    ends_at = invitation.at + call.law.parameters.solicited_validity_days * DAY + 1
    if call.instant >= ends_at or _used(call, invitation):
        failures.append(("E_SOLICITED_CONSUMED", "Q-02"))
    if not invitation.party_id or invitation.subject is None or not covers(invitation.subject, call.request.subject):
        failures.append(("E_SOLICITED_UNCLEAR", "Q-03"))
    if invitation.origin != "own_initiative":
        failures.append(("E_SOLICITED_NOT_OWN_INITIATIVE", "Q-05" if invitation.origin else "Q-01"))
    elif invitation.capture not in ("unticked_box", "spoken", "written"):
        failures.append(("E_SOLICITED_NOT_OWN_INITIATIVE", "Q-04"))
    return Candidate((invitation.event_id,), "OK_SOLICITED", ("Q-06",), failures, ends_at)


def _used(call: Call, invitation: Invitation) -> bool:
    """Whether the responsible party has spoken to the person since; an outcome of the same instant counts, being the stricter."""
    return any(
        outcome.result in CONNECTED_RESULTS
        and outcome.responsible_id == call.responsible_id
        and invitation.at <= outcome.at < call.instant
        for outcome in call.facts.outcomes
    )


def agreed_until(call: Call, invitation: Invitation) -> int | None:
    """First instant at which hours and days count again, if they are waived now for the time agreed (Q-07); else None."""
    if invitation.agreed_at is None or "Q-07" not in call.law:
        return None
    until = invitation.agreed_at + call.law.parameters.solicited_agreed_minutes * MINUTE + 1
    return until if invitation.agreed_at <= call.instant < until else None
