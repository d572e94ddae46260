"""The state of a number as people read it: instants and days as text, persons and the number masked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec

from rules.e164 import masked, without
from rules.facts import NumberFacts
from rules.instants import format_instant
from rules.records import source_event_id
from streams.kept import Entry

_INSTANTS = {"at", "agreed_at"}
_DAYS = {"valid_until", "started_on", "ended_on", "collected_on", "registered_on"}
_PERSONS = {"person_ref", "person_refs"}
_KINDS = ("consents", "withdrawals", "objections", "outcomes", "invitations", "callees", "relationships")


def state_of(number: str, facts: NumberFacts, entries: Iterable[Entry], *, unmasked: bool) -> dict[str, Any]:
    """What is kept of a number.

    Args:
        number: whose state it is.
        facts: as kept in Redis.
        entries: the decisions that are remembered.
        unmasked: with the number and the references to persons in full.

    Returns:
        ``suspended``, each kind of fact as a list, oldest first, and ``decisions``, as JSON has them.
    """
    kinds = {
        kind: [_fact(one, unmasked=unmasked) for one in sorted(getattr(facts, kind), key=lambda one: (one.at, one.event_id))]
        for kind in _KINDS
    }
    decisions = [
        {
            "request_id": entry.request_id if unmasked else without(number, entry.request_id),
            "decision": "approved" if entry.approved else "blocked",
            "decided_at": format_instant(entry.decided_at),
            "valid_until": format_instant(entry.valid_until) if entry.valid_until else None,
        }
        for entry in entries
    ]
    shown = number if unmasked else masked(number)
    return {"number": shown, "suspended": facts.quarantined, **kinds, "decisions": decisions}


def _fact(record: msgspec.Struct, *, unmasked: bool) -> dict[str, Any]:
    return {name: _value(name, getattr(record, name), unmasked=unmasked) for name in record.__struct_fields__}


def _value(name: str, value: Any, *, unmasked: bool) -> Any:
    if value is None or value == ():
        return value
    if name == "event_id":
        return source_event_id(value)
    if name in _INSTANTS:
        return format_instant(value)
    if name in _DAYS:
        return date.fromordinal(value).isoformat()
    if name in _PERSONS and not unmasked:
        return "***" if isinstance(value, str) else ["***" for _ in value]
    return _fact(value, unmasked=unmasked) if isinstance(value, msgspec.Struct) else value
