"""The call requests of the made-up day: what a call centre's dialler asks, with the slips that happen, and broken ones."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from ops.day.cast import CAMPAIGNS, COLD_CAMPAIGNS, OWN_NUMBER, POOR_NUMBER
from ops.day.event import Event
from ops.day.people import Person, chance, one_of
from rules.instants import SECOND, format_instant

#: What goes wrong in a request, in thousandths; ``untried`` is a list that somebody runs before its campaign is on file.
_SLIPS = {"none": 966, "withheld": 6, "false_number": 6, "poor_number": 18, "untried": 4}
_PROMOTIONS = {"none": 62, "incidental": 22, "material": 10, "dominant": 6}


def call_request(rng: random.Random, person: Person, *, now: int, request_id: str) -> Event:
    """A request to call a person within 30 s, mostly for a campaign that has the number."""
    cold = not person.campaigns or chance(rng, 13)
    campaign = CAMPAIGNS[rng.choice(COLD_CAMPAIGNS if cold else person.campaigns)]
    shown_by = campaign.call_centre_id or campaign.responsible_id
    shown = OWN_NUMBER[shown_by]
    slip = one_of(rng, _SLIPS)
    if slip == "false_number":
        shown = OWN_NUMBER["tuinbode" if shown_by != "tuinbode" else "polderpost"]
    elif slip == "poor_number":
        shown = POOR_NUMBER.get(shown_by, shown)
    withheld = slip == "withheld"
    value: dict[str, Any] = {
        "request_id": request_id,
        "number": person.number,
        "dial_at": format_instant(now + rng.randrange(30 * SECOND)),
        **campaign.roles,
        "campaign_id": f"{campaign.campaign_id}-test" if slip == "untried" else campaign.campaign_id,
        "purpose": campaign.purpose,
        "subject": campaign.subject,
        "own_offer": campaign.intermediary_id is None and not chance(rng, 3),
        "dialling_mode": campaign.mode,
        "cli": {"number": None if withheld else shown, "withheld": withheld},
        "person_ref": person.ref,
    }
    if campaign.purpose == "service":
        value["promotion"] = one_of(rng, _PROMOTIONS)
        value["service_necessary"] = chance(rng, 90)
    elif campaign.purpose == "research":
        value["promotion"] = "none" if chance(rng, 90) else "material"
    return Event("call-requests", person.number, value)


def broken(rng: random.Random, request: Event) -> Event:
    """What integrations really send: local time, a national number, a missing field, half a record."""
    value = msgspec.json.decode(request.encoded())
    fault = rng.choice(("local_time", "national_number", "no_cli", "cut_short"))
    if fault == "local_time":
        value["dial_at"] = value["dial_at"].rstrip("Z")
    elif fault == "national_number":
        value["number"] = "0" + request.key.removeprefix("+31")
    elif fault == "no_cli":
        del value["cli"]
    else:
        value = request.encoded()[:-20]
    return request._replace(value=value, sound=False)
