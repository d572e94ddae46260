"""Every decision is taken again from the facts that its ``as_of`` names, and has to give the same bytes."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from ops.audit.case import Case, Decided
from ops.audit.findings import WRONG_APPROVAL, WRONG_DECISION, Tally
from ops.audit.partition import PartitionLog
from ops.audit.records import Fact
from ops.audit.references import ReferenceLog
from ops.audit.terms import Terms
from rules.decide import decide
from rules.decision import Decision
from rules.facts import NumberFacts
from rules.findings import Findings
from rules.rulebook import Rulebook

encode = msgspec.json.Encoder().encode


def check(case: Case, log: PartitionLog, references: ReferenceLog, terms: Terms, tally: Tally) -> None:
    """Take the decisions of one number again, in the order of what was known, so that facts are merged once."""
    judged = [decided for ordered in case.decided.values() for decided in ordered if decided.judged and decided.asked is not None]
    known = Known(case.facts)
    for decided in sorted(judged, key=lambda one: sorted(one.decision.as_of.items())):
        if any(reason.startswith("S_STATE_") for reason in decided.decision.reasons):
            tally.counts["refusals"] += 1
            if decided.decision.approved:
                case.found(WRONG_APPROVAL, decided.first, "an approval with a reason to refuse")
        elif decided.decision.rulebook != terms.book.version:
            tally.counts["other rulebook"] += 1
        else:
            _compare(case, decided, taken_again(decided, known, references, terms.book), log, references, tally)


def taken_again(decided: Decided, known: Known, references: ReferenceLog, book: Rulebook, findings: Findings | None = None) -> Decision:
    """Take a decision again, at its own instant and from what its ``as_of`` names.

    Args:
        decided: a decision whose request is in the log.
        known: the facts of its number.
        references: all reference topics.
        book: the rulebook that it names.
        findings: takes what is found on the way, as of ``rules.decide``.
    """
    assert decided.asked is not None  # callers leave the others out
    as_of = decided.decision.as_of
    return decide(decided.asked.request, known.at(as_of), references.at(as_of), book, decided.decided_at, as_of, findings=findings)


def _compare(case: Case, decided: Decided, again: Decision, log: PartitionLog, references: ReferenceLog, tally: Tally) -> None:
    if encode(again) == decided.first.raw:
        tally.counts["re-decided"] += 1
    elif may_lack_facts(decided, log, references):
        tally.counts["undecidable"] += 1
    elif decided.decision.approved and not again.approved:
        case.found(WRONG_APPROVAL, decided.first, "the facts say " + " ".join(again.reasons))
    else:
        case.found(WRONG_DECISION, decided.first, difference(decided.decision, again))


def may_lack_facts(decided: Decided, log: PartitionLog, references: ReferenceLog) -> bool:
    """Whether the logs may no longer hold what a decision rests on."""
    return references.incomplete_at(decided.decision.as_of) or any(one.begin > 0 for one in log.positions.values())


def difference(was: Decision, again: Decision) -> str:
    """The fields that differ; only codes and ids of rules are quoted, which tell nothing about a person."""
    differing = [name for name in Decision.__struct_fields__ if getattr(was, name) != getattr(again, name)]
    if not differing:
        return "the same fields, written in other bytes"
    quoted = [f"{name} {_quoted(was, name)}, not {_quoted(again, name)}" for name in differing if name in _PLAIN_FIELDS]
    return "; ".join([*quoted, *(name for name in differing if name not in _PLAIN_FIELDS)]) + " differ"


_PLAIN_FIELDS = ("decision", "basis", "reasons", "warnings", "rules", "regime", "valid_until")


def _quoted(decision: Decision, name: str) -> str:
    value = getattr(decision, name)
    return " ".join(value) or "none" if isinstance(value, list) else str(value or "none")


class Known:
    """The facts of one number at rising offsets."""

    def __init__(self, facts: list[Fact]) -> None:
        self._facts: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            self._facts[fact.topic].append(fact)
        self._forget()

    def at(self, as_of: dict[str, int]) -> NumberFacts:
        """What was known below the given next offsets; whoever goes back pays for merging from the start."""
        if any(merged and self._facts[topic][merged - 1].offset >= as_of.get(topic, 0) for topic, merged in self._merged.items()):
            self._forget()
        for topic, facts in self._facts.items():
            while self._merged[topic] < len(facts) and facts[self._merged[topic]].offset < as_of.get(topic, 0):
                self._merge(facts[self._merged[topic]])
                self._merged[topic] += 1
        return self._state

    def _forget(self) -> None:
        self._state = NumberFacts()
        self._merged = dict.fromkeys(self._facts, 0)

    def _merge(self, fact: Fact) -> None:
        if fact.event is None:
            self._state.suspend(fact.log_time_ms)
        else:
            self._state.apply(fact.event, fact.log_time_ms)
