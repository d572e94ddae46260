"""Facts and fields in words: dates as dates, ids with names, terms of the contract as terms of the field."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time
from typing import Any

from pydantic import BaseModel

from ops.audit.records import Fact
from ops.explain.catalogue import Catalogue
from ops.explain.shown import Shown
from rules.events import Evidence
from rules.instants import format_instant
from rules.reference import Reference
from rules.rulebook import Hours, LawOfDay, Rulebook

_PARTIES = frozenset({"party_ids", "party_id", "advertiser_id", "intermediary_id", "call_centre_id", "owner_id", "published_by"})
_IDS = frozenset({"event_id", "relationship_id", "campaign_id", "request_id"})
_TEXTS = frozenset({"subject", "subjects", "rationale", "reason", "released_by", "uri"})
_SAID_APART = frozenset({"event_id", "number", "at"})


class Words:
    """Puts values into words, for one explanation in one language."""

    def __init__(self, texts: Catalogue, shown: Shown, reference: Reference) -> None:
        self.texts = texts
        self.shown = shown
        self._reference = reference

    def party(self, party_id: str) -> str:
        """A party's name, and its id where that is another."""
        name = self.name(party_id)
        party_id = self.shown.identifier(party_id)
        return party_id if name in (None, party_id) else f"{name} ({party_id})"

    def name(self, party_id: str) -> str | None:
        """A party's name; None if it has none on file."""
        entry = self._reference.parties.get(party_id)
        return self.shown.free(entry.name) if entry is not None and entry.name else None

    def fact(self, fact: Fact, place: str) -> dict[str, Any]:
        """A fact about the number, with its dates and all that it states."""
        event = fact.event
        if event is None:
            return {
                "topic": fact.topic, "title": self.texts.phrase("broken_record", topic=self.texts.term("topics", fact.topic)),
                "event_id": None, "at": None, "on": None, "in_log_since": format_instant(fact.log_time_ms * 1000), "place": place,
                "details": [],
            }  # fmt: skip
        kind = getattr(event, "kind", None) if fact.topic == "consents" else None
        return {
            "topic": fact.topic, "title": self.texts.term("topics", f"{fact.topic}.{kind}" if kind else fact.topic),
            "event_id": self.shown.identifier(event.event_id), "at": format_instant(event.at), "on": self.texts.moment(event.at),
            "in_log_since": format_instant(fact.log_time_ms * 1000), "place": place,
            "details": [
                self.detail(name, value)
                for name, value in _stated(event)
                if name not in _SAID_APART and not (kind and name == "kind")
            ],
        }  # fmt: skip

    def detail(self, field: str, value: Any) -> dict[str, str]:
        """A field with its label; a value that nobody stated is said to be that."""
        return {
            "field": field,
            "label": self.texts.term("fields", field),
            "value": self.texts.phrase("not_stated") if value is None else self.value(field, value),
        }

    def value(self, field: str, value: Any) -> str:
        """A value of the contract in words."""
        name = field.rpartition(".")[2]
        if isinstance(value, list):
            return ", ".join(self.value(field, item) for item in value) or self.texts.phrase("nothing")
        if isinstance(value, Evidence):
            return self.shown.free(value.uri) if value.uri else self.texts.phrase("not_stated")
        if isinstance(value, BaseModel):
            return "; ".join(f"{self.texts.term('fields', inner)}: {self.value(inner, one)}" for inner, one in _stated(value))
        if isinstance(value, bool):
            return self.texts.phrase("yes" if value else "no")
        if isinstance(value, int | float):
            return self._figure(name, value)
        return self._text(name, str(value))

    def _figure(self, name: str, value: float) -> str:
        if isinstance(value, float):
            return share(value)
        if name == "at" or name.endswith("_at"):
            return self.texts.moment(value)
        if name == "dated" or name.endswith(("_on", "_until")):
            return self.texts.day(value)
        return str(value)

    def _text(self, name: str, value: str) -> str:
        if name == "number":
            return self.shown.number(value)
        if name == "person_ref":
            return self.shown.person(value)
        if name in _PARTIES:
            return self.party(value)
        if name in _IDS:
            return self.shown.identifier(value)
        return self.shown.free(value) if name in _TEXTS else self.texts.term("values", value)


def of_law(texts: Catalogue, book: Rulebook, law: LawOfDay | None) -> Iterator[tuple[str, str]]:
    """What the texts of codes have from the law: the first day of each regime, and a day's parameters if the rulebook covers it."""
    yield from ((f"{name.lower()}_from", texts.day(first.toordinal())) for first, name in book.regimes)
    if law is not None:
        yield from ((name, _parameter(texts, getattr(law.parameters, name))) for name in book.parameters)


def _parameter(texts: Catalogue, value: Any) -> str:
    """A parameter as a sentence has it: hours, a time, a share, a date, a list of names, or a figure."""
    if isinstance(value, Hours):
        return texts.phrase("hours", opens=f"{value.opens:%H:%M}", closes=f"{value.closes:%H:%M}")
    if isinstance(value, time):
        return f"{value:%H:%M}"
    if isinstance(value, date):
        return texts.day(value.toordinal())
    if isinstance(value, float):
        return share(value)
    if isinstance(value, frozenset) and all(isinstance(item, str) for item in value):
        return texts.joined(sorted(value, key=lambda item: (len(item), item)))
    return str(value)


def share(value: float) -> str:
    """A share as per cent: 3%."""
    return f"{100 * value:g}%"


def _stated(record: BaseModel) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in record if value is not None)
