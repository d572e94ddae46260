"""A decision point by point: each code with its rules and with what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ops.audit.records import Fact
from ops.explain.behind import Looked, facts_behind, looked_at, suspensions
from ops.explain.trace import Trace
from rules.decision import Decision
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import LawOfDay, Rule, Rulebook

Kind = Literal["reason", "basis", "warning"]


@dataclass(frozen=True)
class Point:
    """One code of a decision.

    Attributes:
        rules: that gave it, as they bound on the day of the call.
        facts: about the number, on which it rests, oldest first.
        looked: fields of the request and of reference entries on which it rests.
        missing: what ``E_FACTS_INCOMPLETE`` lacks.
        clears_at: instant from which waiting has taken the reason away, where that is all that is needed.
    """

    kind: Kind
    code: str
    rules: tuple[Rule, ...]
    facts: tuple[Fact, ...]
    looked: tuple[Looked, ...] = ()
    missing: tuple[str, ...] = ()
    clears_at: int | None = None


class Sorter:
    """Sorts a record's rules and evidence by its codes.

    With a trace of the same decision it is known what belongs to which code. Without one, a rule belongs to the codes that it can give,
    and a fact to the codes that rest on facts of its topic.
    """

    def __init__(self, record: Decision, facts: Sequence[Fact], law: LawOfDay | None, book: Rulebook, trace: Trace | None) -> None:
        """Args: as of :class:`~ops.explain.explanation.Explanation`; ``facts`` are those that the record knew."""
        self._record = record
        self._facts = list(facts)
        self._law = law
        self._book = book
        self._trace = trace

    def points(self, request: CallRequest | None, reference: Reference) -> list[Point]:
        """Every code: reasons, basis, warnings. Without a request only facts and rules are told."""
        record = self._record
        coded: list[tuple[Kind, str]] = [("reason", code) for code in record.reasons]
        coded += [("basis", record.basis)] if record.basis is not None else []
        coded += [("warning", code) for code in record.warnings]
        return [
            Point(
                kind,
                code,
                rules=tuple(self._rules(kind, code)),
                facts=tuple(self._evidence(code)),
                looked=tuple(looked_at(code, request, reference)) if request is not None else (),
                missing=tuple(record.missing) if code == "E_FACTS_INCOMPLETE" else (),
            )
            for kind, code in coded
        ]

    def _rules(self, kind: Kind, code: str) -> list[Rule]:
        known = self._law.rules if self._law is not None else {}
        if kind == "warning":
            return [rule for rule in known.values() if code in rule.gives]
        ids = self._record.rules
        if kind == "reason" and self._trace is not None:
            ids = sorted(self._trace.causes.get(code, ()))
        elif kind == "reason":
            ids = [rule_id for rule_id in ids if any(rule.id == rule_id and code in rule.gives for rule in self._book.rules)]
        return [known[rule_id] for rule_id in ids if rule_id in known]

    def _evidence(self, code: str) -> list[Fact]:
        if code == "S_QUARANTINED":
            return suspensions(self._facts)
        if code == "W_LEGALFORM_ASSUMED_NP":
            return [fact for fact in self._facts if fact.topic == "callees"][-1:]
        event_ids = set(self._record.evidence)
        if self._trace is not None and code in self._trace.causes:
            event_ids = set().union(*self._trace.causes[code].values())
        return facts_behind(code, event_ids, self._facts)
