"""What is known about one number, and how facts merge into it.

:class:`NumberFacts` is the state of a number, as it is kept in Redis. Facts merge so that neither order nor repetition matters: every
consent, objection, invitation and outcome is kept by its event_id; of callees and of each relationship only the newest ``at`` is kept,
and equal ones are all kept and read together (``rules.stricter``). The one exception is the contract's: of one event_id (within its
topic) the first that arrives counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from rules.events import (
    CalleeEvent,
    CallOutcomeEvent,
    ConsentEvent,
    InvitationEvent,
    NumberEvent,
    ObjectionEvent,
    QuarantineRelease,
    RelationshipEvent,
)
from rules.records import (
    OPTOUT_PREFIX,
    OPTOUTS_AT_COLLECTION,
    OUTCOME_PREFIX,
    Callee,
    Consent,
    Invitation,
    Objection,
    Outcome,
    Published,
    Relationship,
    Withdrawal,
)
from rules.stricter import stricter_callee, stricter_relationship


class NumberFacts(msgspec.Struct, array_like=True):
    """The state of one number.

    ``callees`` and ``relationships`` hold the newest versions only (several where their ``at`` is equal); ``superseded`` remembers the
    event_ids that they replaced, each behind the first letter of its topic. ``suspended_at`` and ``released_at`` are log times
    (milliseconds) of the latest broken objection or consent and of the latest operator's release; 0: never.
    """

    consents: list[Consent] = []
    withdrawals: list[Withdrawal] = []
    objections: list[Objection] = []
    outcomes: list[Outcome] = []
    invitations: list[Invitation] = []
    callees: list[Callee] = []
    relationships: list[Relationship] = []
    superseded: list[str] = []
    suspended_at: int = 0
    released_at: int = 0

    @property
    def quarantined(self) -> bool:
        """A broken objection or consent has come in since the last release; at the same instant the suspension holds."""
        return self.suspended_at > 0 and self.suspended_at >= self.released_at

    def apply(self, event: NumberEvent, log_time_ms: int = 0) -> bool:
        """Merge one event.

        Args:
            event: a fact about this number.
            log_time_ms: when the log took it in; only a release uses it, because it is compared with the log time of what it releases.

        Returns:
            Whether the state changed.
        """
        return _APPLY[type(event)](self, event, log_time_ms)

    def suspend(self, log_time_ms: int) -> bool:
        """Suspend the number because a record that may be an objection could not be read. Returns whether the state changed."""
        if log_time_ms <= self.suspended_at:
            return False
        self.suspended_at = log_time_ms
        return True

    def callee(self) -> Callee | None:
        """Who uses the number now: the newest fact, equal ones merged to what allows less."""
        return stricter_callee(self.callees)

    def versions(self) -> list[Relationship]:
        """The newest version of every relationship, equal ones merged to what allows less."""
        if len(self.relationships) <= 1:
            return self.relationships
        by_id: dict[str, list[Relationship]] = {}
        for version in self.relationships:
            by_id.setdefault(version.relationship_id, []).append(version)
        return [stricter_relationship(versions) for versions in by_id.values()]


def objection_of(event: NumberEvent) -> Objection | None:
    """The objection that an event is or holds: of its own topic, an ``objected`` outcome, a used opt-out; None if it is none.

    Those of other topics stand behind a prefix, because event_ids are unique within a topic only.
    """
    if isinstance(event, ObjectionEvent):
        return Objection(
            event_id=event.event_id,
            at=event.at,
            party_ids=_named(event.advertiser_id, event.intermediary_id),
            call_centre_id=event.call_centre_id,
            whole_call_centre=event.scope == "whole_call_centre",
            subject=event.subject,
        )
    if isinstance(event, CallOutcomeEvent) and event.result == "objected":
        named = _named(event.advertiser_id, event.intermediary_id)
        return Objection(OUTCOME_PREFIX + event.event_id, event.at, named, event.call_centre_id)
    if isinstance(event, RelationshipEvent) and event.optout_used:
        return Objection(OPTOUT_PREFIX + event.event_id, event.at, (event.advertiser_id,))
    return None


def withdrawal_of(event: NumberEvent) -> Withdrawal | None:
    """The withdrawal that a consent event is; None if it gives a consent, or is of another topic."""
    if isinstance(event, ConsentEvent) and event.kind == "withdrawn":
        return Withdrawal(event.event_id, event.at, _named(*event.party_ids or ()))
    return None


def _known(records: Iterable[Any], event_id: str) -> bool:
    return any(record.event_id == event_id for record in records)


def _apply_consent(facts: NumberFacts, event: ConsentEvent, _log_time_ms: int) -> bool:
    if _known(facts.consents, event.event_id) or _known(facts.withdrawals, event.event_id):
        return False
    withdrawal = withdrawal_of(event)
    if withdrawal is not None:
        facts.withdrawals.append(withdrawal)
        return True
    evidence = event.evidence
    facts.consents.append(
        Consent(
            event_id=event.event_id,
            at=event.at,
            party_ids=tuple(event.party_ids or ()),
            subjects=tuple(event.subjects or ()),
            telephone="telephone" in (event.channels or ()),
            capture=str(event.capture),
            proven=bool(evidence and evidence.uri and evidence.sha256),
            person_ref=event.person_ref,
            verified=event.verified_by is not None,
            first_contact_months=event.first_contact_within_months,
            valid_until=event.valid_until,
            giver_age=event.giver_age,
        )
    )
    return True


def _apply_objection(facts: NumberFacts, event: ObjectionEvent, _log_time_ms: int) -> bool:
    return _object(facts, event)


def _object(facts: NumberFacts, event: NumberEvent) -> bool:
    """Keep the objection that an event holds, if it does, under its event_id. Returns whether it is new."""
    objection = objection_of(event)
    if objection is None or _known(facts.objections, objection.event_id):
        return False
    facts.objections.append(objection)
    return True


def _apply_outcome(facts: NumberFacts, event: CallOutcomeEvent, _log_time_ms: int) -> bool:
    if _known(facts.outcomes, event.event_id):
        return False
    responsible_id = event.advertiser_id if event.intermediary_id is None else event.intermediary_id
    facts.outcomes.append(Outcome(event.event_id, event.at, responsible_id, event.result))
    _object(facts, event)
    return True


def _apply_invitation(facts: NumberFacts, event: InvitationEvent, _log_time_ms: int) -> bool:
    if _known(facts.invitations, event.event_id):
        return False
    facts.invitations.append(
        Invitation(event.event_id, event.at, event.party_id, event.subject, event.origin, event.capture, event.agreed_at)
    )
    return True


def _apply_callee(facts: NumberFacts, event: CalleeEvent, _log_time_ms: int) -> bool:
    mark = f"c{event.event_id}"
    if _known(facts.callees, event.event_id) or mark in facts.superseded:
        return False
    newest = facts.callees[0].at if facts.callees else None
    if newest is not None and event.at < newest:
        facts.superseded.append(mark)
        return True
    if newest is not None and event.at > newest:
        facts.superseded += [f"c{old.event_id}" for old in facts.callees]
        facts.callees.clear()
    offer = event.published_for_marketing
    published = None
    if offer is not None and offer.uri and offer.at is not None and offer.subjects:
        published = Published(offer.at, tuple(offer.subjects))
    facts.callees.append(
        Callee(
            event_id=event.event_id,
            at=event.at,
            legal_form=event.legal_form or "unknown",
            person_refs=() if event.person_ref is None else (event.person_ref,),
            age=event.age,
            age_suspected_minor=event.age_suspected_minor is True,
            published=published,
            country=event.country,
            local_rules_met=event.local_rules_met is True,
            deceased=event.deceased is True,
            registered_on=event.do_not_call_registered_on,
        )
    )
    return True


def _apply_relationship(facts: NumberFacts, event: RelationshipEvent, _log_time_ms: int) -> bool:
    mark = f"r{event.event_id}"
    if _known(facts.relationships, event.event_id) or mark in facts.superseded:
        return False
    # A used opt-out is kept apart from the version: a later version does not undo an objection.
    _object(facts, event)
    same = [version for version in facts.relationships if version.relationship_id == event.relationship_id]
    newest = same[0].at if same else None
    if newest is not None and event.at < newest:
        facts.superseded.append(mark)
        return True
    if newest is not None and event.at > newest:
        facts.superseded += [f"r{old.event_id}" for old in same]
        facts.relationships = [version for version in facts.relationships if version not in same]
    facts.relationships.append(
        Relationship(
            event_id=event.event_id,
            at=event.at,
            relationship_id=event.relationship_id,
            advertiser_id=event.advertiser_id,
            kind=event.kind,
            paid=event.paid is True,
            number_given_in_sale=event.number_given_in_sale is True,
            started_on=event.started_on,
            ended_on=event.ended_on,
            collected_on=event.collected_on,
            informed=event.informed is True,
            optout_at_collection=event.optout_offered in OPTOUTS_AT_COLLECTION,
            subjects=tuple(event.subjects or ()),
            rationale=bool(event.rationale),
        )
    )
    return True


def _apply_release(facts: NumberFacts, _event: QuarantineRelease, log_time_ms: int) -> bool:
    if log_time_ms <= facts.released_at:
        return False
    facts.released_at = log_time_ms
    return True


_APPLY: dict[type, Callable[[NumberFacts, Any, int], bool]] = {
    ConsentEvent: _apply_consent,
    ObjectionEvent: _apply_objection,
    CallOutcomeEvent: _apply_outcome,
    InvitationEvent: _apply_invitation,
    CalleeEvent: _apply_callee,
    RelationshipEvent: _apply_relationship,
    QuarantineRelease: _apply_release,
}


def _named(*party_ids: str | None) -> tuple[str, ...]:
    # An empty id names nobody; an objection that names nobody reaches everyone.
    return tuple(party_id for party_id in party_ids if party_id)
