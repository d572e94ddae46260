"""Stops against approvals: no approval against an objection that was acknowledged before (G1), and recalls for all others (G3)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from ops.audit.case import Case, Decided
from ops.audit.findings import OBJECTED, UNEXPLAINED, UNRECALLED, Tally
from ops.audit.histories import Histories
from ops.audit.records import Asked, Fact, Published
from ops.audit.references import ReferenceLog
from ops.audit.terms import MILLISECOND, Terms
from rules.decision import Decision
from rules.events import REQUEST_TOPIC
from rules.facts import NumberFacts
from rules.instants import SECOND
from rules.recall import Stop, stop_of, takes_back


def check(case: Case, references: ReferenceLog, histories: Histories, terms: Terms, tally: Tally) -> None:
    """Judge one number's approvals and recalls by its stops."""
    stops = effective_stops(case.facts)
    judge = _Judge(case, stops, references, histories, terms, tally)
    tally.counts["stops"] += sum(terms.judged(stop.topic, case.partition, stop.offset) for stop in stops)
    for ordered in case.decided.values():
        for decided in ordered:
            if stops and decided.decision.approved:
                judge.approval(decided)
            judge.recalls(decided, decided.recalls)
    for recalls in case.stray_recalls.values():
        judge.recalls(None, recalls)


def effective_stops(facts: Sequence[Fact]) -> list[Stop]:
    """The stops of a number: of one event_id in a topic only the first counts, because a fact that changes nothing stops nothing."""
    state = NumberFacts()
    new = [fact for fact in facts if fact.event is None or state.apply(fact.event, fact.log_time_ms)]
    return sorted(every_stop(new), key=lambda stop: stop.log_time_ms)


def every_stop(facts: Sequence[Fact]) -> list[Stop]:
    """The stops of a number, copies included."""
    stops = []
    for fact in facts:
        if fact.event is None:
            stops.append(Stop(fact.topic, fact.offset, fact.log_time_ms))
        elif (stop := stop_of(fact.event, fact.topic, fact.offset, fact.log_time_ms)) is not None:
            stops.append(stop)
    return stops


class _Order(Enum):
    BROKEN = "the request came after the stop was acknowledged"
    UNKNOWN = "too close to tell"
    IN_FLIGHT = "the request was on its way"


class _Judge:
    def __init__(
        self, case: Case, stops: list[Stop], references: ReferenceLog, histories: Histories, terms: Terms, tally: Tally
    ) -> None:
        self._case = case
        self._stops = stops
        self._references = references
        self._histories = histories
        self._terms = terms
        self._tally = tally
        self._tolerance = terms.tolerance_ms * MILLISECOND

    def approval(self, decided: Decided) -> None:
        """G1 for every request that got this approval; then G3."""
        for repeat in decided.repeats:
            # An approval that has come to an end is repeated as it was, whatever came since; nobody may dial on it.
            if repeat.judged and self._left(decided, repeat.log_time_ms) > self._tolerance:
                self._is_against_a_stop(decided, repeat)
        asked = decided.asked
        if asked is not None and not (asked.judged and self._is_against_a_stop(decided, asked)):
            self._recalled(decided, asked)

    def recalls(self, decided: Decided | None, recalls: Sequence[Published]) -> None:
        """Every recall takes back an approval, for a reason."""
        judged = [one for one in recalls if one.judged]
        self._tally.counts["recalls"] += len(judged)
        self._tally.counts["recalls beyond the first"] += max(0, min(len(judged), len(recalls) - 1))
        without_approval = decided is None or not decided.decision.approved
        for recall in judged:
            self._tally.counts["recalls without approval"] += without_approval
            if not any(reason.startswith("S_STATE_") for reason in recall.decision.reasons):
                self._explained(recall, None if without_approval else decided)

    def _explained(self, recall: Published, decided: Decided | None) -> None:
        asked = decided.asked if decided is not None else next(iter(self._case.asked.get(recall.decision.request_id, ())), None)
        subject = asked.request.subject if asked is not None else None
        # Without the approval nobody knows what it was decided with, so that any stop may be the reason.
        approval = decided.decision if decided is not None else msgspec.structs.replace(recall.decision, as_of={})
        known = [self._references.at(approval.as_of), self._references.at(recall.decision.as_of)]
        if any(takes_back(stop, approval, subject, reference) for reference in known for stop in self._stops):
            return
        # After a loss of Redis a guard does not know which facts had been applied before, nor what a request was about.
        if any(takes_back(stop, approval, None, reference) for reference in known for stop in every_stop(self._case.facts)):
            self._tally.counts["cautious recalls"] += 1
        else:
            self._case.found(UNEXPLAINED, recall, "no stop takes an approval of this request back")

    def _is_against_a_stop(self, decided: Decided, asked: Asked) -> bool:
        """Whether a request was approved although a stop had been acknowledged before it was produced; reported if so."""
        reference = self._references.at(decided.decision.as_of)
        unknown = False
        for stop in self._stops:
            order = self._order(stop, asked)
            if order is _Order.IN_FLIGHT or not takes_back(stop, decided.decision, asked.request.subject, reference):
                continue
            if order is _Order.BROKEN:
                self._case.found(OBJECTED, decided.first, self._describe(stop, asked))
                return True
            unknown = True
        self._tally.counts["undecided"] += unknown
        return False

    def _describe(self, stop: Stop, asked: Asked) -> str:
        partition = self._case.partition
        ahead_ms = asked.log_time_ms - stop.log_time_ms
        request = f"{REQUEST_TOPIC}-{partition}@{asked.offset}"
        return f"{stop.topic}-{partition}@{stop.offset} ({stop.code}) is {ahead_ms} ms older than {request}"

    def _order(self, stop: Stop, asked: Asked) -> _Order:
        sent_at = self._histories.sent_at(REQUEST_TOPIC, asked.offset)
        acked_at = self._histories.acked_at(stop.topic, stop.offset)
        if sent_at is not None and acked_at is not None:
            return _Order.BROKEN if sent_at > acked_at else _Order.IN_FLIGHT
        behind_ms = asked.log_time_ms - stop.log_time_ms
        if behind_ms > self._terms.tolerance_ms:
            return _Order.BROKEN
        return _Order.UNKNOWN if behind_ms > 0 else _Order.IN_FLIGHT

    def _recalled(self, decided: Decided, asked: Asked) -> None:
        """A recall for an approval that a stop met while it was valid."""
        met = [stop for stop in self._stops if self._left(decided, stop.log_time_ms) > 0]
        reaching = [stop for stop in met if self._reaches(stop, decided.decision, asked.request.subject) is not False]
        if not reaching:
            return
        first = reaching[0]
        judged = decided.judged or any(self._terms.judged(one.topic, self._case.partition, one.offset) for one in reaching)
        self._tally.counts["approvals met by a stop"] += judged
        if decided.recalls:
            recall = decided.recalls[0]
            if recall.judged:
                due_ms = max(first.log_time_ms, decided.first.log_time_ms)
                self._tally.latencies_ms.append(max(0, recall.log_time_ms - due_ms))
        elif judged:
            self._unrecalled(decided, asked, reaching)

    def _unrecalled(self, decided: Decided, asked: Asked, reaching: list[Stop]) -> None:
        terms, case = self._terms, self._case
        due = [stop for stop in reaching if not terms.young(max(stop.log_time_ms, decided.first.log_time_ms))]
        if not due:
            self._tally.pending(reaching[0].topic, case.partition, reaching[0].offset)
            return
        certain = [
            stop
            for stop in due
            if self._reaches(stop, decided.decision, asked.request.subject) and self._left(decided, stop.log_time_ms) > self._tolerance
        ]
        if not certain:
            self._tally.counts["undecided"] += 1
            return
        stop = certain[0]
        left_s = self._left(decided, stop.log_time_ms) / SECOND
        place = f"{stop.topic}-{case.partition}@{stop.offset}"
        case.found(UNRECALLED, decided.first, f"{place} ({stop.code}) met it {left_s:.1f} s before its end")

    def _left(self, decided: Decided, log_time_ms: int) -> int:
        """How long an approval was still valid at a log time (microseconds)."""
        return decided.valid_until - self._terms.guard_clock(log_time_ms)

    def _reaches(self, stop: Stop, approval: Decision, subject: str | None) -> bool | None:
        """Whether a stop takes an approval back; None if that hangs on a brand that changed between the two."""
        then = takes_back(stop, approval, subject, self._references.at(approval.as_of))
        later = takes_back(stop, approval, subject, self._references.at_time(stop.log_time_ms))
        return then if then == later else None
