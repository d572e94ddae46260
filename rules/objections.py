"""Objections and withdrawals: rules O-01 to O-10 and C-13.

An objection holds at once and for ever, against every party that it names, the parties of the same brand, and whoever else its scope
reaches. Only a later good consent that names the party lifts it.
"""

from __future__ import annotations

from collections.abc import Iterable

from rules.call import Call
from rules.records import Objection, source_event_id
from rules.reference import Reference
from rules.subjects import covers


def reaching(call: Call, party_id: str) -> list[Objection]:
    """The objections on file that stop this call as a call of one party of its chain, lifted or not."""
    request = call.request
    return [
        objection
        for objection in call.facts.objections
        if reaches(objection, party_id, request.call_centre_id, request.subject, call.reference)
    ]


def evidence(objections: Iterable[Objection]) -> list[str]:
    """Ids of the facts that the objections came from."""
    return [source_event_id(objection.event_id) for objection in objections]


def withdrawals_reaching(call: Call, party_id: str) -> list[tuple[int, str]]:
    """Instant and event_id of each withdrawal that reaches a party: named, of a named brand, or nobody named at all."""
    return [
        (withdrawal.at, withdrawal.event_id)
        for withdrawal in call.facts.withdrawals
        if not withdrawal.party_ids or names(withdrawal.party_ids, party_id, call.reference)
    ]


def withdrawn_since(call: Call, at: int, party_id: str) -> bool:
    """Whether a consent of instant ``at`` has been withdrawn from a party; at the same instant the withdrawal wins."""
    return any(withdrawn_at >= at for withdrawn_at, _ in withdrawals_reaching(call, party_id))


def stopped_since(call: Call, at: int) -> bool:
    """Whether an objection or withdrawal that reaches the chain came at or after an instant (it voids an invitation)."""
    return any(
        any(objection.at >= at for objection in reaching(call, party_id)) or withdrawn_since(call, at, party_id)
        for party_id in call.chain
    )


def reaches(objection: Objection, party_id: str, call_centre_id: str | None, subject: str | None, reference: Reference) -> bool:
    """Whether an objection stops a call as a call of one party of its chain.

    Args:
        objection: as it is kept.
        party_id: the responsible party or the advertiser.
        call_centre_id: the hired call centre, if there is one.
        subject: what the call is about; None: it may be about anything.
        reference: for the brands.
    """
    # An empty subject limits nothing.
    if objection.subject and subject is not None and not covers(objection.subject, subject):
        return False
    centre = objection.call_centre_id
    if objection.whole_call_centre or not objection.party_ids:
        if not centre:
            return True
        if centre in (call_centre_id, party_id):
            return True
    return names(objection.party_ids, party_id, reference)


def names(party_ids: tuple[str, ...], party_id: str, reference: Reference) -> bool:
    """Whether a party is among some named ones, or of the same brand as one of them."""
    return party_id in party_ids or any(reference.same_brand(party_id, named) for named in party_ids)
