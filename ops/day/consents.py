"""A consent of the made-up day, given or withdrawn, in somebody's past or while the day goes on; and what may be the matter with it."""

from __future__ import annotations

import random
from typing import Any

from ops.day.event import Event
from ops.day.people import Person, chance
from rules.instants import format_instant

_GOOD_CAPTURES = ("unticked_box", "spoken", "written")
_CHECKS = ("sms", "email", "app", "call", "in_person")
#: What is the matter with a consent, in shares. ``good`` and ``old_used`` carry a call.
CONSENT_QUALITIES = {
    "good": 58,
    "old_used": 6,
    "late": 9,
    "preticked_box": 3,
    "terms": 2,
    "bundled_clause": 2,
    "combined_tick": 4,
    "purchased_list": 3,
    "unproven": 3,
    "unverified": 4,
    "other_person": 2,
    "other_subject": 3,
    "own_end": 2,
    "email_only": 2,
    "withdrawn": 4,
    "other_party": 7,
    "renewed": 3,
}


def given(rng: random.Random, person: Person, party_id: str, subject: str, *, at: int, event_id: str, **other: Any) -> Event:
    """A consent with nothing the matter but ``other``; it covers the whole branch (``energy``) or the one product."""
    value = {
        "event_id": event_id,
        "number": person.number,
        "at": format_instant(at),
        "kind": "given",
        "party_ids": [party_id],
        "subjects": [subject.partition("/")[0] if chance(rng, 60) else subject],
        "channels": ["telephone"],
        "capture": rng.choice(_GOOD_CAPTURES),
        "evidence": {"uri": f"s3://proof/{event_id}", "sha256": f"{rng.getrandbits(256):064x}"},
        "person_ref": person.ref,
        "verified_by": rng.choice(_CHECKS),
        **other,
    }
    return Event("consents", person.number, value)


def shortcoming(quality: str, person: Person, ended: str) -> dict[str, Any]:
    """The fields in which a consent of this quality differs from a good one; none where time or a withdrawal is the matter.

    Args:
        quality: one of CONSENT_QUALITIES.
        person: who should have given it.
        ended: a date before the day, for a consent that ran out by its own text.
    """
    fields: dict[str, dict[str, Any]] = {
        "preticked_box": {"capture": quality},
        "terms": {"capture": quality},
        "bundled_clause": {"capture": quality},
        "purchased_list": {"capture": quality},
        "combined_tick": {"capture": quality, "channels": ["telephone", "email"]},
        "unproven": {"evidence": None},
        "unverified": {"verified_by": None},
        "other_person": {"person_ref": f"{person.ref}-before"},
        "other_subject": {"subjects": ["newsletter"]},
        "own_end": {"valid_until": ended},
        "email_only": {"channels": ["email"]},
        "other_party": {"party_ids": ["polderpost"]},
    }
    return fields.get(quality, {})


def withdrawn(person: Person, party_id: str, *, at: int, event_id: str) -> Event:
    """The consent to one party's calls is taken back."""
    value = {
        "event_id": event_id,
        "number": person.number,
        "at": format_instant(at),
        "kind": "withdrawn",
        "party_ids": [party_id],
    }
    return Event("consents", person.number, value)
