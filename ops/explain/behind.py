"""What a code leans on beside its rule: topics that hold its facts, and fields of the request and of reference entries.

The rules look at more than facts about the number. Whoever reads that a caller number is not published wants to see the entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ops.audit.records import Fact
from rules.reference import Reference
from rules.requests import CallRequest

#: Topics in which the facts of a code stand, by the code or by how it begins; the first that fits counts.
_TOPICS = {
    "E_OBJECTION_OFFER_MISSING": (),
    "E_OBJECTION": ("objections", "call-outcomes", "relationships"),
    "E_CONSENT": ("consents",),
    "OK_CONSENT": ("consents",),
    "E_AUTOMATED": ("consents",),
    "E_MINOR": ("callees", "consents"),
    "E_BMNR": ("callees",),
    "E_SOLICITED": ("invitations",),
    "OK_SOLICITED": ("invitations",),
    "E_CHARITY": ("relationships",),
    "E_EXEMPT": ("relationships",),
    "E_REL": ("relationships",),
    "OK_RELATIONSHIP": ("relationships",),
    "OK_CHARITY": ("relationships",),
    "OK_PERIODICAL": ("relationships",),
    "OK_LOTTERY": ("relationships",),
    "OK_OWN_CUSTOMER": ("relationships",),
    "OK_": ("callees",),
    "P_": ("call-outcomes",),
}

#: Fields that a code leans on, as ``source.field``.
_FIELDS = {
    "S_REQUEST_EXPIRED": ("request.dial_at",),
    "S_DIAL_TOO_FAR": ("request.dial_at",),
    "E_CLI_FALSE": ("request.cli.number", "caller_number.owner_id"),
    "E_CLI_WITHHELD": ("request.cli.withheld",),
    "E_CLI_NOT_CALLABLE": ("request.cli.number", "caller_number.callable_back", "caller_number.in_use_until"),
    "E_CLI_PREMIUM": ("request.cli.number", "caller_number.tariff"),
    "E_CLI_NOT_PUBLISHED": ("request.cli.number", "caller_number.published_by"),
    "E_SERVICE_NOT_NECESSARY": ("request.purpose", "request.service_necessary"),
    "E_SERVICE_PROMOTIONAL": ("request.purpose", "request.promotion"),
    "E_AUTOMATED_NO_CONSENT": ("request.dialling_mode",),
    "E_CONSENT_SUBJECT": ("request.subject",),
    "E_CONSENT_UNPROVEN": ("request.person_ref",),
    "E_BMNR_SCRUB_STALE": ("request.scrubbed_on",),
    "E_CHARITY_NOT_OWN_PURPOSE": ("request.purpose", "request.own_offer"),
    "E_EXEMPT_NOT_PERIODICAL": ("responsible.kinds", "responsible.issues_per_year"),
    "E_EXEMPT_NOT_LICENSED": ("responsible.kinds", "responsible.wok_article"),
    "E_REL_NOT_SIMILAR": ("request.subject", "request.own_offer"),
    "E_REL_TERM_EXCEEDED": ("responsible.term_extensions",),
    "E_REL_NO_BALANCE_TEST": ("responsible.balance_tests", "responsible.term_extensions"),
    "E_REL_BALANCE_TERM_EXCEEDED": ("responsible.balance_tests", "responsible.term_extensions"),
    "E_INTERMEDIARY_BASIS": ("request.intermediary_id",),
    "E_OBJECTION_OFFER_MISSING": ("campaign.objection_offered",),
    "P_ABANDON_RATE": ("request.dialling_mode", "campaign.abandoned_share_24h"),
    "OK_SERVICE": ("request.purpose", "request.promotion", "request.service_necessary"),
    "OK_NOT_TELEMARKETING": ("request.purpose", "request.promotion"),
    "OK_PERIODICAL_PUBLISHER": ("responsible.kinds", "responsible.issues_per_year"),
    "OK_LOTTERY_LICENSEE": ("responsible.kinds", "responsible.wok_article"),
    "OK_OPTOUT_PRE2021": ("request.scrubbed_on",),
    "W_SERVICE_TINT": ("request.promotion",),
}


class Looked(NamedTuple):
    """A field that a rule looked at. ``source``: request, campaign, responsible or caller_number; ``value`` None: not stated."""

    source: str
    entry_id: str
    field: str
    value: Any


def facts_behind(code: str, event_ids: set[str], facts: list[Fact]) -> list[Fact]:
    """The facts of some event_ids that a code rests on, in the order of their own dates; of copies the first, which counts."""
    topics = next((names for start, names in _TOPICS.items() if code.startswith(start)), None)
    found: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        if fact.event is not None and fact.event.event_id in event_ids and (topics is None or fact.topic in topics):
            found.setdefault((fact.topic, fact.event.event_id), fact)
    return sorted(found.values(), key=lambda fact: (fact.event.at if fact.event is not None else 0, fact.topic, fact.offset))


def suspensions(facts: list[Fact]) -> list[Fact]:
    """The broken record that suspends a number now, and the release before it, if there is one."""
    broken = [fact for fact in facts if fact.event is None]
    released = [fact for fact in facts if fact.topic == "quarantine-releases" and fact.event is not None]
    return sorted([*released[-1:], *broken[-1:]], key=lambda fact: fact.log_time_ms)


def looked_at(code: str, request: CallRequest, reference: Reference) -> Iterator[Looked]:
    """The fields that a code leans on, as they stood."""
    shown = request.cli.number or ""
    entries: dict[str, tuple[str, Any]] = {
        "request": (request.request_id, request),
        "campaign": (request.campaign_id, reference.campaigns.get(request.campaign_id)),
        "responsible": (request.responsible_id, reference.parties.get(request.responsible_id)),
        "caller_number": (shown, reference.caller_numbers.get(shown)),
    }
    for path in _FIELDS.get(code, ()):
        source, field = path.split(".", 1)
        entry_id, value = entries[source]
        for name in field.split("."):
            value = getattr(value, name, None)
        yield Looked(source, entry_id, field, value)
