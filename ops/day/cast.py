"""Who calls: the parties of the made-up day, their campaigns, and the caller numbers they show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ops.day.event import Event

_TESTS = [{"dated": "2025-09-01", "term_months": 24}]

_PARTIES: tuple[dict[str, Any], ...] = (
    {"party_id": "duinstroom", "name": "Duinstroom Energie", "brand": "Duinstroom", "ddma_member": True, "balance_tests": _TESTS},
    {"party_id": "duinstroom-thuis", "name": "Duinstroom Thuis", "brand": "Duinstroom", "ddma_member": True},
    {"party_id": "veenlicht", "name": "Veenlicht Telecom", "legal_form": "public_company", "engages": ["dijkzicht"]},
    {"party_id": "terpzeker", "name": "Terpzeker Verzekeringen", "legal_form": "public_company", "balance_tests": _TESTS},
    {"party_id": "keuzebaken", "name": "Keuzebaken Vergelijkers", "ddma_member": True},
    {"party_id": "dijkzicht", "name": "Dijkzicht Contact", "ddma_member": True},
    {
        "party_id": "helderwater",
        "name": "Stichting Helder Water",
        "legal_form": "foundation",
        "kinds": ["ideal_or_charitable"],
        "balance_tests": _TESTS,
        "engages": ["dijkzicht"],
    },
    {
        "party_id": "polderpost",
        "name": "De Polderpost",
        "kinds": ["periodical_publisher"],
        "issues_per_year": 303,
        "balance_tests": _TESTS,
    },
    {"party_id": "tuinbode", "name": "Tuinbode Uitgevers", "kinds": ["periodical_publisher"], "issues_per_year": 2},
    {
        "party_id": "molenloterij",
        "name": "Stichting Molenloterij",
        "legal_form": "foundation",
        "kinds": ["lottery_licensee"],
        "wok_article": "3",
        "balance_tests": _TESTS,
    },
)
PARTY_NAMES: dict[str, str] = {party["party_id"]: party["name"] for party in _PARTIES}


class _Caller(NamedTuple):
    number: str
    owner_id: str
    tariff: str = "normal"
    published: bool = True
    in_use_until: str | None = None


_CALLERS = (
    _Caller("+31880000101", "duinstroom"),
    _Caller("+31880000102", "duinstroom-thuis"),
    _Caller("+31880000103", "veenlicht"),
    _Caller("+31880000104", "terpzeker"),
    _Caller("+31880000105", "keuzebaken"),
    _Caller("+31880000106", "dijkzicht"),
    _Caller("+31880000107", "helderwater"),
    _Caller("+31880000108", "polderpost"),
    _Caller("+31880000109", "tuinbode"),
    _Caller("+31880000110", "molenloterij"),
)
_POOR_CALLERS = (
    _Caller("+31900000111", "terpzeker", tariff="premium"),
    _Caller("+31880000112", "keuzebaken", published=False),
    _Caller("+31880000113", "veenlicht", in_use_until="2027-01-15"),
)
#: The number that a party ought to show, and the one with something the matter that some have too, by party_id.
OWN_NUMBER = {caller.owner_id: caller.number for caller in _CALLERS}
POOR_NUMBER = {caller.owner_id: caller.number for caller in _POOR_CALLERS}


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is sold (or asked), for whom, by whom and how."""

    campaign_id: str
    advertiser_id: str
    subject: str
    intermediary_id: str | None = None
    call_centre_id: str | None = None
    purpose: str = "commercial"
    mode: str = "manual"
    objection_offered: bool = True
    share: float | None = None  # of calls abandoned in 24 h

    @property
    def responsible_id(self) -> str:
        """The party that needs a basis of its own: an intermediary recruits at its own risk."""
        return self.intermediary_id or self.advertiser_id

    @property
    def roles(self) -> dict[str, str | None]:
        """The three parties of a call, as the fields of a record."""
        return {
            "advertiser_id": self.advertiser_id,
            "intermediary_id": self.intermediary_id,
            "call_centre_id": self.call_centre_id,
        }


CAMPAIGNS = {
    campaign.campaign_id: campaign
    for campaign in (
        Campaign("stroom-winter", "duinstroom", "energy/contract", call_centre_id="dijkzicht"),
        Campaign("zon-op-dak", "duinstroom-thuis", "energy/solar"),
        Campaign("glasvezel", "veenlicht", "telecom/fibre", call_centre_id="dijkzicht", mode="predictive", share=0.012),
        Campaign("mobiel-najaar", "veenlicht", "telecom/mobile", mode="predictive", share=0.061),
        Campaign("storing-bericht", "veenlicht", "telecom/fibre", mode="automated_voice"),
        Campaign("klantendienst", "veenlicht", "telecom/fibre", purpose="service"),
        Campaign("autopolis", "terpzeker", "insurance/car"),
        Campaign("reispolis", "terpzeker", "insurance/travel", objection_offered=False),
        Campaign("zakenpolis", "terpzeker", "insurance/business"),
        Campaign("tevredenheid", "terpzeker", "insurance/car", purpose="research"),
        Campaign("vergelijk-stroom", "duinstroom", "energy/contract", intermediary_id="keuzebaken"),
        Campaign("vergelijk-bellen", "veenlicht", "telecom/mobile", intermediary_id="keuzebaken"),
        Campaign("donateurs", "helderwater", "water", call_centre_id="dijkzicht", purpose="charitable"),
        Campaign("abonnees", "polderpost", "newspaper"),
        Campaign("tuinblad", "tuinbode", "gardening"),
        Campaign("deelnemers", "molenloterij", "lottery"),
    )
}
#: Campaigns that lean on consent, by how many people are on their lists.
CONSENT_CAMPAIGNS = {
    "stroom-winter": 20,
    "zon-op-dak": 11,
    "glasvezel": 18,
    "mobiel-najaar": 3,
    "storing-bericht": 2,
    "autopolis": 14,
    "reispolis": 2,
    "vergelijk-stroom": 13,
    "vergelijk-bellen": 9,
}
#: Campaigns that also call people who are not on their lists.
COLD_CAMPAIGNS = ("stroom-winter", "zon-op-dak", "glasvezel", "autopolis", "vergelijk-stroom", "vergelijk-bellen")


def reference() -> Iterator[Event]:
    """Parties, campaigns and caller numbers as records."""
    for party in _PARTIES:
        yield Event("parties", party["party_id"], {"legal_form": "private_company", "country": "NL", **party})
    for campaign in CAMPAIGNS.values():
        value = {
            "campaign_id": campaign.campaign_id,
            "advertiser_id": campaign.advertiser_id,
            "intermediary_id": campaign.intermediary_id,
            "subject": campaign.subject,
            "objection_offered": campaign.objection_offered,
            "script_ref": f"script-{campaign.campaign_id}",
            "abandoned_share_24h": campaign.share,
        }
        yield Event("campaigns", campaign.campaign_id, value)
    for caller in (*_CALLERS, *_POOR_CALLERS):
        # The call centre's number stands on the site of every client; the others on their owner's.
        published = list(PARTY_NAMES) if caller.owner_id == "dijkzicht" else [caller.owner_id] if caller.published else []
        entry = {
            "number": caller.number,
            "owner_id": caller.owner_id,
            "callable_back": True,
            "tariff": caller.tariff,
            "published_by": published,
            "in_use_until": caller.in_use_until,
        }
        yield Event("caller-numbers", caller.number, entry)
