"""What is kept of a fact: small records, packed as msgpack arrays, with what the rules look at and nothing else.

Sets that say what a kind, form or result counts as stand here too, beside the fields that hold them.
"""

from __future__ import annotations

import msgspec

SALE_KINDS = frozenset({"purchase", "contract", "subscription", "lottery_participation"})
LINK_KINDS = frozenset({"donation", "volunteering", "event_attendance"})
LEGAL_PERSONS = frozenset({"private_company", "public_company", "foundation", "association", "cooperative"})
BUSINESS_PERSONS = frozenset({"sole_trader", "general_partnership", "professional_partnership", "limited_partnership"})
CONNECTED_RESULTS = frozenset({"connected", "not_interested", "objected"})
OPTOUTS_AT_COLLECTION = frozenset({"preticked_call_me", "unticked_do_not_call", "spoken", "written"})


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    """Base of the stored records: packed by position, so fields may only be added at the end, with a default."""


class Consent(_Packed, frozen=True):
    """A consent that was given. ``proven``: evidence has both its parts."""

    event_id: str
    at: int
    party_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    telephone: bool
    capture: str
    proven: bool
    person_ref: str | None
    verified: bool
    first_contact_months: int | None
    valid_until: int | None
    giver_age: int | None


class Withdrawal(_Packed, frozen=True):
    """A consent withdrawn from some parties, or from everyone if none is named."""

    event_id: str
    at: int
    party_ids: tuple[str, ...]


class Objection(_Packed, frozen=True):
    """An objection, from the topic of that name, an ``objected`` outcome or a used opt-out."""

    event_id: str
    at: int
    party_ids: tuple[str, ...]
    call_centre_id: str | None = None
    whole_call_centre: bool = False
    subject: str | None = None


class Relationship(_Packed, frozen=True):
    """The newest version of a relationship."""

    event_id: str
    at: int
    relationship_id: str
    advertiser_id: str | None
    kind: str | None
    paid: bool
    number_given_in_sale: bool
    started_on: int | None
    ended_on: int | None
    collected_on: int | None
    informed: bool
    optout_at_collection: bool
    subjects: tuple[str, ...]
    rationale: bool


class Invitation(_Packed, frozen=True):
    """A person asked to be called."""

    event_id: str
    at: int
    party_id: str | None
    subject: str | None
    origin: str | None
    capture: str | None
    agreed_at: int | None


class Published(_Packed, frozen=True):
    """A number published by its user to be called with offers."""

    at: int
    subjects: tuple[str, ...]


class Callee(_Packed, frozen=True):
    """The user of the number. ``person_refs`` has one entry, or none if unknown; several only where equal facts disagree."""

    event_id: str
    at: int
    legal_form: str
    person_refs: tuple[str, ...]
    age: int | None
    age_suspected_minor: bool
    published: Published | None
    country: str | None
    local_rules_met: bool
    deceased: bool
    registered_on: int | None


class Outcome(_Packed, frozen=True):
    """How a call of a responsible party ended."""

    event_id: str
    at: int
    responsible_id: str
    result: str


#: Stands before the event_id of an objection that came from another topic than ``objections``.
OUTCOME_PREFIX = "o\x00"
OPTOUT_PREFIX = "r\x00"


def source_event_id(event_id: str) -> str:
    """The event_id of the fact that an objection came from."""
    return event_id[2:] if event_id.startswith((OUTCOME_PREFIX, OPTOUT_PREFIX)) else event_id
