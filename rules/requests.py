"""A call request as the rules look at it, and a quick way to read one that is written as most are.

pydantic's model of the contract (``rules.events``) takes 21 microseconds a request, with strict JSON and Python's own checks of numbers
and instants; a decoder compiled for one struct takes 1. :func:`read_quickly` uses that where nothing can be wrong with the record, and
leaves every other to the model, which also knows what is wrong.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rules.e164 import is_e164
from rules.instants import parse_day, parse_instant

#: A text longer than this is ``too_large``, so that every decision, which echoes a handful of texts, fits into a Kafka record.
MAX_TEXT_CHARS = 4096
MAX_REQUEST_ID_CHARS = 128

Purpose = Literal["commercial", "ideal", "charitable", "service", "research"]
Promotion = Literal["none", "incidental", "material", "dominant"]
DiallingMode = Literal["manual", "predictive", "automated_voice"]


class Cli(msgspec.Struct, frozen=True):
    """The caller number shown; ``number`` is absent only when ``withheld``, or the facts are incomplete."""

    number: str | None
    withheld: bool


class CallRequest(msgspec.Struct, frozen=True):
    """A dialler's question: may this number be called for this party, then, about this?

    ``dial_at`` is an instant and ``dial_at_text`` the same as it was asked, which decisions echo; ``scrubbed_on`` is a day.
    """

    request_id: str
    number: str
    dial_at: int
    dial_at_text: str
    advertiser_id: str
    intermediary_id: str | None
    call_centre_id: str | None
    campaign_id: str
    purpose: Purpose
    promotion: Promotion | None
    service_necessary: bool | None
    subject: str | None
    own_offer: bool | None
    dialling_mode: DiallingMode
    cli: Cli
    person_ref: str | None
    scrubbed_on: int | None

    @property
    def responsible_id(self) -> str:
        """Whose call it is: the intermediary that calls at its own risk, else the advertiser."""
        return self.advertiser_id if self.intermediary_id is None else self.intermediary_id

    def content(self) -> tuple[dict[str, object], str | None, bool]:
        """All that makes two requests of one id the same request; instants compare as instants, not as text.

        Its packed form is what ``request-digest`` is taken of: keep names and order.
        """
        return {name: getattr(self, name) for name in _CONTENT}, self.cli.number, self.cli.withheld


_CONTENT = tuple(name for name in CallRequest.__struct_fields__ if name not in ("dial_at_text", "cli"))

_Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]


class _WireCli(msgspec.Struct):
    withheld: bool
    number: str | UnsetType | None = UNSET


class _Wire(msgspec.Struct, kw_only=True):
    """The record as it is written: a field that is left out is told from one that is null."""

    request_id: Annotated[str, Meta(min_length=1, max_length=MAX_REQUEST_ID_CHARS)]
    number: str
    dial_at: str
    advertiser_id: _Text
    intermediary_id: _Text | UnsetType | None = UNSET
    call_centre_id: _Text | UnsetType | None = UNSET
    campaign_id: _Text
    purpose: Purpose
    promotion: Promotion | UnsetType | None = UNSET
    service_necessary: bool | UnsetType | None = UNSET
    subject: _Text | UnsetType | None = UNSET
    own_offer: bool | UnsetType | None = UNSET
    dialling_mode: DiallingMode
    cli: _WireCli
    person_ref: _Text | UnsetType | None = UNSET
    scrubbed_on: str | UnsetType | None = UNSET


_decode = msgspec.json.Decoder(_Wire).decode

#: Quotation marks of the fields that every request has: seven names with texts, ``cli`` and ``withheld``.
_QUOTES = 7 * 4 + 2 * 2


def read_quickly(raw: bytes) -> CallRequest | None:
    """Read a request that is plainly right: known fields, each once.

    The decoder takes a field that stands there twice, of which the model would not know which one counts. Every name and every text
    brings two quotation marks; so a record with just as many as its fields have holds none twice, and none that is unknown.

    Returns:
        What ``rules.events`` makes of it under its own key, with no unknown field; None: ask there.
    """
    try:
        wire = _decode(raw)
        optional: list[Any] = [
            wire.intermediary_id, wire.call_centre_id, wire.promotion, wire.service_necessary, wire.subject, wire.own_offer,
            wire.person_ref, wire.scrubbed_on, wire.cli.number,
        ]  # fmt: skip
        quotes = _QUOTES
        for position, value in enumerate(optional):
            if value is UNSET:
                optional[position] = None
            else:
                quotes += 4 if type(value) is str else 2
        if raw.count(b'"') != quotes or not is_e164(wire.number):
            return None
        intermediary_id, call_centre_id, promotion, service_necessary, subject, own_offer, person_ref, scrubbed_on, shown = optional
        if shown is not None and not is_e164(shown):
            return None
        return CallRequest(
            wire.request_id,
            wire.number,
            parse_instant(wire.dial_at),
            wire.dial_at,
            wire.advertiser_id,
            intermediary_id,
            call_centre_id,
            wire.campaign_id,
            wire.purpose,
            promotion,
            service_necessary,
            subject,
            own_offer,
            wire.dialling_mode,
            Cli(shown, wire.cli.withheld),
            person_ref,
            parse_day(scrubbed_on) if scrubbed_on is not None else None,
        )
    except (msgspec.MsgspecError, ValueError):
        return None
