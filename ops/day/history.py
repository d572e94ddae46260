"""What happened before the made-up day: one person's past as facts, with what is the matter in each of them."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

from ops.day.cast import CAMPAIGNS, CONSENT_CAMPAIGNS, Campaign
from ops.day.consents import CONSENT_QUALITIES, given, shortcoming, withdrawn
from ops.day.event import Event
from ops.day.people import Person, chance, one_of
from rules.instants import DAY, HOUR, MINUTE, format_instant, local_day

_MONTH = 30 * DAY

_PEOPLE = {"consent": 66, "relationship": 19, "customer": 9, "stranger": 6}
_FORMS = {"natural_person": 880, "sole_trader": 40, "private_company": 45, "foundation": 8, "unknown": 27}
#: Ages 15 and 16 are too young to be called; a few of them have a telephone on a call list.
_YOUNG_PERCENT = 1.2
#: What is the matter with a relationship of a publisher, lottery or charity, in shares. ``good`` and ``running`` carry a call.
_RELATIONSHIPS = {
    "good": 34,
    "running": 30,
    "test_term": 7,
    "three_years": 5,
    "not_informed": 4,
    "no_optout": 4,
    "no_sale": 5,
    "not_similar": 4,
    "optout_used": 5,
}
_RELATED_CAMPAIGNS = {"donateurs": 36, "abonnees": 32, "deelnemers": 26, "tuinblad": 6}
_RELATION_KINDS = {"donateurs": "donation", "deelnemers": "lottery_participation"}
_INVITATIONS = {"good": 60, "survey": 14, "unclear": 10, "old": 16}
# Numbers collected before this day need no offer to opt out: ``no_optout`` would be nothing the matter.
_COLLECTED_FROM = date(2021, 7, 1).toordinal()
#: What came of earlier calls, in shares.
_ENCOUNTERS = {
    "nothing": 740,
    "told_centre": 12,
    "told_everyone": 8,
    "objected": 65,
    "never_there": 30,
    "not_interested": 35,
    "silent": 15,
    "today": 25,
    "no_answer": 70,
}


class History:
    """Writes down one person's past: ``write()`` fills ``events``."""

    def __init__(self, rng: random.Random, number: str, ref: str, start: int) -> None:
        self.events: list[Event] = []
        self._rng = rng
        self._person = Person(number, ref, ())
        self._start = start

    def write(self) -> Person:
        """Fill ``events`` and return the person with the campaigns that have the number."""
        form = one_of(self._rng, _FORMS)
        self._callee(form)
        if form in ("private_company", "foundation"):
            return self._person._replace(campaigns=("zakenpolis", "zakenpolis", "vergelijk-bellen"))
        campaigns = self._campaigns(one_of(self._rng, _PEOPLE))
        if campaigns:
            self._encounters(CAMPAIGNS[campaigns[0]])
        if chance(self._rng, 5):
            campaign_id = one_of(self._rng, CONSENT_CAMPAIGNS)
            self._invitation(CAMPAIGNS[campaign_id], one_of(self._rng, _INVITATIONS))
            campaigns.append(campaign_id)
        return self._person._replace(campaigns=tuple(campaigns))

    def _campaigns(self, kind: str) -> list[str]:
        """Why the number came onto lists, and onto which; a stranger's is on none."""
        rng = self._rng
        if kind == "consent":
            campaigns = list(dict.fromkeys(one_of(rng, CONSENT_CAMPAIGNS) for _ in range(rng.choice((1, 1, 2)))))
            for campaign_id in campaigns:
                self._consent(CAMPAIGNS[campaign_id], one_of(rng, CONSENT_QUALITIES))
            return campaigns
        if kind == "relationship":
            campaign_id = one_of(rng, _RELATED_CAMPAIGNS)
            self._relationship(CAMPAIGNS[campaign_id], one_of(rng, _RELATIONSHIPS))
            return [campaign_id]
        if kind == "customer":
            # A sale was a basis until 2026-06-30; lists from before that day are still about.
            campaign_id = rng.choice(("stroom-winter", "zon-op-dak", "glasvezel", "autopolis"))
            self._sale(CAMPAIGNS[campaign_id])
            also = {"glasvezel": ["klantendienst"], "autopolis": ["tevredenheid"]}
            return [campaign_id, *also.get(campaign_id, [])]
        return []

    def _ago(self, least: int, most: int) -> int:
        return self._start - self._rng.randrange(least, most)

    def _add(self, topic: str, at: int, **fields: Any) -> None:
        number = self._person.number
        value = {"event_id": self._event_id(), "number": number, "at": format_instant(at), **fields}
        self.events.append(Event(topic, number, value))

    def _event_id(self) -> str:
        return f"{self._person.ref}-{len(self.events)}"

    def _callee(self, form: str) -> None:
        rng = self._rng
        fields: dict[str, Any] = {"legal_form": form, "person_ref": self._person.ref, "country": "NL"}
        if form == "natural_person":
            fields["age"] = rng.randint(15, 16) if chance(rng, _YOUNG_PERCENT) else rng.randint(18, 91)
        elif form == "sole_trader" and chance(rng, 30):
            published_at = format_instant(self._ago(_MONTH, 20 * _MONTH))
            subjects = ["telecom", "insurance", "energy"]
            fields["published_for_marketing"] = {"uri": "https://example.org/site", "at": published_at, "subjects": subjects}
        self._add("callees", self._ago(12 * _MONTH, 40 * _MONTH), **fields)

    def _consent(self, campaign: Campaign, quality: str) -> None:
        old = quality in ("late", "old_used")
        at = self._ago(7 * _MONTH, 20 * _MONTH) if old else self._ago(3 * DAY, 5 * _MONTH)
        ended = _date(local_day(self._start) - self._rng.randint(1, 60))
        self._given(campaign, at, **shortcoming(quality, self._person, ended))
        if quality == "old_used":
            self._called(campaign, "connected", at + self._rng.randrange(DAY, 4 * _MONTH))
        elif quality in ("withdrawn", "renewed"):
            withdrawn_at = at + self._rng.randrange(HOUR, 2 * DAY)
            self.events.append(withdrawn(self._person, campaign.responsible_id, at=withdrawn_at, event_id=self._event_id()))
            if quality == "renewed":
                self._given(campaign, withdrawn_at + self._rng.randrange(HOUR, DAY))

    def _given(self, campaign: Campaign, at: int, **other: Any) -> None:
        party_id, event_id = campaign.responsible_id, self._event_id()
        self.events.append(given(self._rng, self._person, party_id, campaign.subject, at=at, event_id=event_id, **other))

    def _relationship(self, campaign: Campaign, quality: str) -> None:
        rng = self._rng
        # Everything is drawn whatever the quality, so that the rest of the past does not hang on it.
        ended_ago = {"test_term": rng.randint(760, 1000), "three_years": rng.randint(1110, 1500), "running": None}
        ended = ended_ago.get(quality, rng.randint(20, 600))
        last_day = local_day(self._start) - (ended or 0)
        first_day = last_day - rng.randint(100, 1500)
        kind = _RELATION_KINDS.get(campaign.campaign_id, "subscription")
        if quality == "no_sale":
            kind = "petition" if kind == "donation" else "trial"
        self._related(
            campaign.advertiser_id,
            kind,
            first_day,
            self._ago(10 * DAY, 19 * DAY),
            paid=quality != "no_sale",
            ended_on=None if ended is None else _date(last_day),
            collected_on=_date(max(first_day, _COLLECTED_FROM)),
            informed=quality != "not_informed",
            optout_offered="terms_only" if quality == "no_optout" else "unticked_do_not_call",
            optout_used=quality == "optout_used",
            subjects=["webshop"] if quality == "not_similar" else [campaign.subject],
        )

    def _sale(self, campaign: Campaign) -> None:
        # Solar panels are sold to a sister company's customers.
        party_id = "duinstroom" if campaign.campaign_id == "zon-op-dak" else campaign.advertiser_id
        first_day = local_day(self._start) - self._rng.randint(90, 900)
        self._related(party_id, "contract", first_day, self._ago(10 * DAY, 60 * DAY), subjects=[campaign.subject])

    def _related(self, party_id: str, kind: str, first_day: int, at: int, **other: Any) -> None:
        """A relationship that still runs and has nothing the matter but ``other``."""
        fields = {
            "relationship_id": f"{self._person.ref}-{party_id}",
            "advertiser_id": party_id,
            "kind": kind,
            "paid": True,
            "number_given_in_sale": True,
            "started_on": _date(first_day),
            "ended_on": None,
            "collected_on": _date(first_day),
            "informed": True,
            "optout_offered": "unticked_do_not_call",
            "optout_used": False,
        }
        self._add("relationships", at, **fields | other)

    def _invitation(self, campaign: Campaign, quality: str) -> None:
        self._add(
            "invitations",
            self._ago(33 * DAY, 50 * DAY) if quality == "old" else self._ago(10 * MINUTE, 9 * DAY),
            party_id=None if quality == "unclear" else campaign.responsible_id,
            subject=campaign.subject,
            origin="survey" if quality == "survey" else "own_initiative",
            capture="unticked_box",
        )

    def _encounters(self, campaign: Campaign) -> None:
        """What came of earlier calls, and who objected."""
        what = one_of(self._rng, _ENCOUNTERS)
        if what in ("told_centre", "told_everyone", "objected"):
            self._objected(campaign, what)
        elif what == "never_there":
            for days in (4, 9, 17):
                self._called(campaign, self._rng.choice(("no_answer", "busy")), self._start - days * DAY - 3 * HOUR)
        elif what == "today":
            self._called(campaign, "no_answer", self._ago(20 * MINUTE, 4 * HOUR))
        elif what != "nothing":
            spans = {"not_interested": 50 * DAY, "silent": 2 * DAY, "no_answer": 28 * DAY}
            self._called(campaign, what, self._ago(DAY, spans[what]))

    def _objected(self, campaign: Campaign, what: str) -> None:
        centre = campaign.call_centre_id if what == "told_centre" else None
        everyone = what == "told_everyone"
        self._add(
            "objections",
            self._ago(HOUR, 2 * DAY),
            advertiser_id=None if everyone else campaign.advertiser_id,
            intermediary_id=None if everyone else campaign.intermediary_id,
            call_centre_id=centre,
            scope="whole_call_centre" if centre else None,
            channel=self._rng.choice(("call", "ivr", "web", "email", "letter")),
        )

    def _called(self, campaign: Campaign, result: str, at: int) -> None:
        fields = {**campaign.roles, "campaign_id": campaign.campaign_id, "result": result}
        self._add("call-outcomes", min(at, self._start - MINUTE), **fields)


def _date(day: int) -> str:
    return date.fromordinal(day).isoformat()
