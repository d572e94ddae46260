"""What an explanation says, before it is put into words: made from the logs of one number, without reading anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from ops.audit.case import Case, Decided
from ops.audit.records import Fact, Published
from ops.audit.redecision import Known as Merged
from ops.audit.redecision import difference, encode, may_lack_facts, taken_again
from ops.explain.known import Known
from ops.explain.places import Place
from ops.explain.points import Point, Sorter
from ops.explain.trace import Trace
from ops.explain.waiting import clears_at
from rules.decision import Decision
from rules.errors import RulebookGap
from rules.instants import local_day, parse_instant
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import LawOfDay, Rulebook


@dataclass(frozen=True)
class Account:
    """One record, decision or recall, point by point. ``notes``: keys of the catalogue, of what could not be told and why."""

    place: Place
    decision: Decision
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Why a request was answered as it was.

    Attributes:
        decided: the latest decision; its recall where the log no longer holds what was recalled.
        recalls: what took it back afterwards.
        request: what was asked; None if the log no longer holds it.
        reference: parties, campaigns and caller numbers as the guard knew them.
        law: of the day of the call; None if the rulebook does not cover it.
        book: the rulebook in use, from which rules are quoted.
        confirmed: the decision was taken again and gave the same bytes.
        difference: how the record differs from the decision that is taken again, which it must not.
        others: earlier decisions of this request_id that were met on the way.
    """

    decided: Account
    recalls: tuple[Account, ...]
    request: CallRequest | None
    reference: Reference
    law: LawOfDay | None
    book: Rulebook
    confirmed: bool = False
    difference: str | None = None
    others: tuple[Place, ...] = ()

    @property
    def outcome(self) -> Literal["approved", "blocked", "recalled"]:
        """What holds now: blocked always wins."""
        if self.recalls or self.decided.decision.kind == "recall":
            return "recalled"
        return self.decided.decision.decision


def explain(request_id: str, case: Case, known: Known, book: Rulebook) -> Explanation | None:
    """Explain the latest decision of a request.

    Args:
        request_id: of the request.
        case: all about its number.
        known: the logs that it was made from.
        book: the rulebook in use.

    Returns:
        None if the case holds no decision of the request.
    """
    decided, stray = case.decided.get(request_id), case.stray_recalls.get(request_id)
    if decided:
        return _Explainer(case, known, book).decision(decided[-1], decided[:-1])
    return _Explainer(case, known, book).lone_recall(stray[-1]) if stray else None


class _Explainer:
    def __init__(self, case: Case, known: Known, book: Rulebook) -> None:
        self._case = case
        self._known = known
        self._book = book

    def decision(self, decided: Decided, others: Sequence[Decided]) -> Explanation:
        record, request = decided.decision, decided.asked.request if decided.asked is not None else None
        reference, law = self._known.references.at(record.as_of), self._law(record)
        notes, trace, differing = self._hindrances(decided), None, None
        if not notes:
            noted = Trace()
            again = taken_again(decided, Merged(self._case.facts), self._known.references, self._book, noted)
            if encode(again) == decided.first.raw:
                trace = noted
            elif may_lack_facts(decided, self._known.log, self._known.references):
                notes.append("facts_gone")
            else:
                differing = difference(record, again)
        account = self._account(decided.first, law, reference, None if "facts_gone" in notes else request, trace)
        account = replace(account, notes=(*notes, *account.notes))
        if trace is not None and request is not None:
            account = replace(account, points=tuple(self._with_end(point, record, request, reference) for point in account.points))
        return Explanation(
            decided=account,
            recalls=tuple(self._account(recall, law, reference, None, None) for recall in decided.recalls),
            request=request,
            reference=reference,
            law=law,
            book=self._book,
            confirmed=trace is not None,
            difference=differing,
            others=tuple(self._place(one.first) for one in others),
        )

    def lone_recall(self, recall: Published) -> Explanation:
        law, reference = self._law(recall.decision), self._known.references.at(recall.decision.as_of)
        account = self._account(recall, law, reference, None, None)
        account = replace(account, notes=("approval_gone", *account.notes))
        return Explanation(account, (), None, reference, law, self._book)

    def _hindrances(self, decided: Decided) -> list[str]:
        """Why a decision cannot be taken again."""
        found = []
        if any(reason.startswith("S_STATE_") for reason in decided.decision.reasons):
            found.append("refused_unseen")
        if decided.decision.rulebook != self._book.version:
            found.append("other_rulebook")
        if decided.asked is None:
            found.append("request_gone")
        return found

    def _account(
        self, at: Published, law: LawOfDay | None, reference: Reference, request: CallRequest | None, trace: Trace | None
    ) -> Account:
        record = at.decision
        facts = self._facts(record)
        points = Sorter(record, facts, law, self._book, trace).points(request, reference)
        there = {fact.event.event_id for fact in facts if fact.event is not None}
        notes = () if there.issuperset(record.evidence) else ("evidence_gone",)
        return Account(self._place(at), record, tuple(points), notes)

    def _with_end(self, point: Point, record: Decision, request: CallRequest, reference: Reference) -> Point:
        state = Merged(self._case.facts).at(record.as_of)
        return replace(point, clears_at=clears_at(point.code, request, state, reference, self._book, _judged_at(record)))

    def _facts(self, record: Decision) -> list[Fact]:
        """What was known of the number when a record was made."""
        return [fact for fact in self._case.facts if fact.offset < record.as_of.get(fact.topic, 0)]

    def _law(self, record: Decision) -> LawOfDay | None:
        member = self._known.references.at(record.as_of).is_member(record.responsible_id)
        try:
            return self._book.on(date.fromordinal(local_day(_judged_at(record))), member=member)
        except RulebookGap:
            return None

    def _place(self, at: Published) -> Place:
        return Place(at.topic, self._case.partition, at.offset)


def _judged_at(record: Decision) -> int:
    """The instant for which a call was judged."""
    return max(parse_instant(record.dial_at), parse_instant(record.decided_at))
