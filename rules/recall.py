"""Recalls: which approvals, given and still valid, a fact takes back (promise G3; rules O-01 to O-10, C-13).

Objections, ``objected`` outcomes, used opt-outs, withdrawals and suspensions are *stops*. A stop takes back every approval of its
number that was decided without it and that it reaches: by name, brand, call centre or subject. Whether a later consent would lift
the stop is not asked: whoever wants to dial all the same asks again, and is answered with everything that is known then.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rules.codes import REASON_ORDER
from rules.decision import Decision
from rules.events import NumberEvent
from rules.facts import objection_of, withdrawal_of
from rules.instants import format_instant
from rules.objections import names, reaches
from rules.records import Objection, Withdrawal, source_event_id
from rules.reference import Reference

_RULE_OF = {"E_OBJECTION": "O-01", "E_CONSENT_WITHDRAWN": "C-13"}


class Stop(msgspec.Struct, frozen=True):
    """A fact that takes approvals back, and where it stands: topic (name without prefix), offset, log time in milliseconds.

    ``cause`` is the objection or withdrawal; None for a suspension, which takes back every approval of the number.
    """

    topic: str
    offset: int
    log_time_ms: int
    cause: Objection | Withdrawal | None = None

    @property
    def code(self) -> str:
        """The reason that a recall gives."""
        if self.cause is None:
            return "S_QUARANTINED"
        return "E_OBJECTION" if isinstance(self.cause, Objection) else "E_CONSENT_WITHDRAWN"


def stop_of(event: NumberEvent, topic: str, offset: int, log_time_ms: int) -> Stop | None:
    """The stop that an event is; None for all other facts.

    Args:
        event: a fact that can be read.
        topic: where it stands, name without prefix.
        offset: its offset in its number's own partition.
        log_time_ms: when the log took it in.
    """
    cause = objection_of(event) or withdrawal_of(event)
    return Stop(topic, offset, log_time_ms, cause) if cause is not None else None


def takes_back(stop: Stop, approval: Decision, subject: str | None, reference: Reference) -> bool:
    """Whether a stop takes an approval of its number back, supposing that the approval is still valid.

    Args:
        stop: the fact.
        approval: the record as it was published; its ``as_of`` tells whether it was decided with the stop.
        subject: what the request was about; None if it named none or that is not known any more: then any partial objection counts.
        reference: for the brands.
    """
    if stop.offset < approval.as_of.get(stop.topic, 0):
        return False
    if stop.cause is None:
        return True
    if not _may_be_objected_to(approval):
        return False
    chain = {approval.responsible_id, approval.advertiser_id}
    if isinstance(stop.cause, Withdrawal):
        named = stop.cause.party_ids
        return not named or any(names(named, party_id, reference) for party_id in chain)
    return any(reaches(stop.cause, party_id, approval.call_centre_id, subject, reference) for party_id in chain)


def _may_be_objected_to(approval: Decision) -> bool:
    """Research that is no telemarketing, and messages necessarily tied to a service, may reach who objected (S-06, S-07, S-09)."""
    if approval.basis == "OK_SERVICE":
        return "W_SERVICE_TINT" in approval.warnings
    return approval.basis != "OK_NOT_TELEMARKETING"


def recall(approval: Decision, stops: Sequence[Stop], rulebook: str, now: int, as_of: dict[str, int]) -> Decision:
    """The record that takes an approval back.

    Args:
        approval: the record that is taken back.
        stops: why; none: the approval surfaced late, and nobody knows any more what has come in since it was decided.
        rulebook: name and digest of the rulebook of whoever takes it back.
        now: instant of the recall.
        as_of: next offset of each topic whose effect is known by now, the stops included.
    """
    codes = {stop.code for stop in stops} or {"S_STATE_STALE"}
    return msgspec.structs.replace(
        approval,
        decision="blocked",
        kind="recall",
        basis=None,
        reasons=sorted(codes, key=REASON_ORDER.__getitem__),
        rules=sorted({_RULE_OF[code] for code in codes if code in _RULE_OF}),
        evidence=sorted({source_event_id(stop.cause.event_id) for stop in stops if stop.cause is not None}),
        rulebook=rulebook,
        decided_at=format_instant(now),
        valid_until=None,
        as_of=as_of,
    )
