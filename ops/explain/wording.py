"""An explanation in words, as JSON: the terminal, the gateway and the dashboard show this and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ops.audit.records import Fact
from ops.explain.catalogue import LANGUAGES, catalogue, clock
from ops.explain.explanation import Account, Explanation
from ops.explain.points import Point
from ops.explain.shown import Shown
from ops.explain.values import Words, of_law
from rules.decision import Decision
from rules.instants import format_instant, parse_instant
from rules.rulebook import Rule

#: Headings that whoever shows the JSON needs, so that no page needs a catalogue of its own.
LABELS = (
    "number", "advertiser", "intermediary", "call_centre", "responsible", "campaign", "dial_at", "decided_at",
    "valid_until", "regime", "rulebook", "record", "check", "reasons", "basis", "warnings", "recalls", "rules", "facts", "looked_at",
    "remedy", "remedy_basis", "notes", "others",
)  # fmt: skip


def worded(explanation: Explanation, lang: str = LANGUAGES[0], *, unmasked: bool = False) -> dict[str, Any]:
    """Put an explanation into words.

    Args:
        explanation: what is to be said.
        lang: ``en`` or ``nl``.
        unmasked: show numbers and persons in full.

    Raises:
        ValueError: there are no texts in this language.
    """
    return _Speaker(explanation, lang, unmasked=unmasked).everything()


class _Speaker:
    def __init__(self, explanation: Explanation, lang: str, *, unmasked: bool) -> None:
        self._explanation = explanation
        self._texts = texts = catalogue(lang)
        self._record = explanation.decided.decision
        self._shown = Shown(self._record.number, texts.phrase("person"), unmasked=unmasked)
        self._words = Words(texts, self._shown, explanation.reference)
        self._values = dict(self._common_values())

    def everything(self) -> dict[str, Any]:
        explanation, record, texts = self._explanation, self._record, self._texts
        return {
            "request_id": self._shown.identifier(record.request_id),
            "lang": texts.lang,
            "number": self._shown.number(record.number),
            "outcome": explanation.outcome,
            "headline": texts.phrase(f"headline_{explanation.outcome}", moment=texts.moment(self._last().decided_at)),
            "dial_at": {"at": record.dial_at, "on": texts.moment(record.dial_at)},
            "valid_until": self._moment(record.valid_until),
            "parties": list(self._parties(record)),
            "campaign_id": self._shown.identifier(record.campaign_id),
            "regime": None if record.regime is None else self._regime(record.regime),
            "rulebook_in_use": explanation.book.version,
            "check": self._check(),
            "decided": self._account(explanation.decided),
            "recalls": [self._account(recall) for recall in explanation.recalls],
            "others": [str(place) for place in explanation.others],
            "labels": {name: texts.phrase(f"label_{name}") for name in LABELS},
        }

    def _last(self) -> Decision:
        accounts = (self._explanation.decided, *self._explanation.recalls[:1])
        return accounts[-1].decision

    def _moment(self, text: str | None) -> dict[str, str] | None:
        return None if text is None else {"at": text, "on": self._texts.moment(text)}

    def _regime(self, name: str) -> dict[str, str]:
        first = next(day for day, regime in self._explanation.book.regimes if regime == name)
        text = self._texts.term("regimes", name)
        shown = self._texts.phrase("regime_since", name=name, first=self._texts.day(first.toordinal()), text=text)
        return {"name": name, "from": first.isoformat(), "text": text, "shown": shown}

    def _parties(self, record: Decision) -> Iterator[dict[str, str | None]]:
        roles = {"advertiser": record.advertiser_id, "intermediary": record.intermediary_id, "call_centre": record.call_centre_id}
        for role, party_id in roles.items():
            if party_id is not None:
                shown = self._shown.identifier(party_id)
                yield {"role": role, "id": shown, "name": self._words.name(party_id), "shown": self._words.party(party_id)}

    def _check(self) -> dict[str, str | None]:
        explanation = self._explanation
        result = "confirmed" if explanation.confirmed else "not_taken_again" if explanation.difference is None else "differs"
        return {"result": result, "text": self._texts.phrase(f"check_{result}"), "difference": explanation.difference}

    # --- One record ---------------------------------------------------------------------------------------------------------

    def _account(self, account: Account) -> dict[str, Any]:
        record = account.decision
        values = {"rulebook": record.rulebook, "rulebook_in_use": self._explanation.book.version}
        return {
            "kind": record.kind,
            "at": str(account.place),
            "decided_at": self._moment(record.decided_at),
            "rulebook": record.rulebook,
            "points": [self._point(point, account) for point in account.points],
            "notes": [{"code": note, "text": self._texts.note(note, **values)} for note in account.notes],
        }

    def _point(self, point: Point, account: Account) -> dict[str, Any]:
        text = self._texts.code(point.code, {**self._values, **self._point_values(point)})
        remedy = text.remedy
        if point.clears_at is not None:
            remedy = f"{remedy} {self._texts.phrase('clears', moment=self._texts.moment(point.clears_at))}"
        return {
            "kind": point.kind,
            "code": point.code,
            "name": text.name,
            "meaning": text.meaning,
            "remedy": remedy,
            "clears_at": None if point.clears_at is None else format_instant(point.clears_at),
            "rules": [self._rule(rule) for rule in point.rules],
            "facts": [self._words.fact(fact, self._fact_place(fact, account)) for fact in point.facts],
            "looked_at": [
                {
                    "source": looked.source,
                    "source_text": self._texts.phrase(f"source_{looked.source}"),
                    "id": self._shown.identifier(looked.entry_id),
                    **self._words.detail(looked.field, looked.value),
                }
                for looked in point.looked
            ],
            "missing": [self._missing(item) for item in point.missing],
        }

    def _fact_place(self, fact: Fact, account: Account) -> str:
        return f"{fact.topic}-{account.place.partition}@{fact.offset}"

    def _missing(self, item: str) -> str:
        topic, colon, key = item.partition(":")
        if not colon:
            return f"{self._texts.phrase('source_request')}: {self._texts.term('fields', item)}"
        return f"{self._texts.term('topics', topic)}: {self._shown.identifier(key)}"

    def _rule(self, rule: Rule) -> dict[str, Any]:
        return {
            "id": rule.id,
            "title": self._texts.title(rule),
            "severity": rule.severity,
            "severity_text": self._texts.term("severities", rule.severity),
            "from": rule.first_day.isoformat(),
            "from_members": None if rule.first_day_members is None else rule.first_day_members.isoformat(),
            "until": None if rule.last_day is None else rule.last_day.isoformat(),
            "sources": [
                {
                    "ref": source.ref,
                    "level": source.level,
                    "level_text": self._texts.term("levels", source.level),
                    "checked": source.checked.isoformat(),
                    "checked_on": self._texts.day(source.checked.toordinal()),
                }
                for source in rule.sources
            ],
        }

    # --- What the texts are filled in with ----------------------------------------------------------------------------------

    def _common_values(self) -> Iterator[tuple[str, str]]:
        record, request, texts = self._record, self._explanation.request, self._texts
        judged_at = max(parse_instant(record.dial_at), parse_instant(record.decided_at))
        chain = dict.fromkeys((record.responsible_id, record.advertiser_id))
        yield "responsible", self._words.party(record.responsible_id)
        yield "advertiser", self._words.party(record.advertiser_id)
        yield "chain", texts.joined([self._words.party(party_id) for party_id in chain])
        yield "campaign", self._shown.identifier(record.campaign_id)
        yield "dial_at", texts.moment(record.dial_at)
        yield "decided_at", texts.moment(record.decided_at)
        yield "valid_until", texts.moment(record.valid_until) if record.valid_until is not None else ""
        yield "day", texts.weekday(judged_at)
        yield "time", clock(judged_at)
        yield from of_law(texts, self._explanation.book, self._explanation.law)
        yield "of_subject", texts.phrase("of_subject", subject=self._shown.free(request.subject)) if request and request.subject else ""

    def _point_values(self, point: Point) -> dict[str, str]:
        dates = [fact.event.at for fact in point.facts if fact.event is not None]
        of_date = self._texts.phrase("of_date", moment=self._texts.moment(max(dates))) if dates else ""
        return {"of_date": of_date, "missing": ", ".join(map(self._missing, point.missing))}
