"""Everything about one number, parsed, and its answers sorted out: what the checks look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import msgspec

from ops.audit.findings import ORPHAN, REJECTED_DECIDED, UNREADABLE, Finding, Tally
from ops.audit.partition import Dossier, PartitionLog
from ops.audit.records import APPROVED, Asked, Fact, LogRecord, Published
from ops.audit.terms import Terms
from rules.decision import Decision
from rules.e164 import masked
from rules.events import REQUEST_TOPIC, NumberEvent, read_event
from rules.instants import SECOND, parse_instant
from rules.requests import CallRequest

#: Clocks of two workers may differ by this much; a recall may seem that much older than its approval.
CLOCKS_APART = 2 * SECOND

_decode = msgspec.json.Decoder(Decision).decode


class Decided(msgspec.Struct, eq=False):
    """A decision, with all the places where it stands.

    Attributes:
        first: where it was published first.
        asked: the request that it was taken for: the first one that it answers; None if that is not in the log any more.
        repeats: later requests that were answered with it.
        decided_at, valid_until: instants; ``valid_until`` is 0 for a blocked call.
        recalls: the recalls that follow it, in the order of the log, each once.
    """

    first: Published
    asked: Asked | None
    repeats: list[Asked]
    decided_at: int
    valid_until: int
    recalls: list[Published] = []

    @property
    def decision(self) -> Decision:
        """The record."""
        return self.first.decision

    @property
    def judged(self) -> bool:
        """Whether it is of this audit."""
        return self.first.judged or (self.asked is not None and self.asked.judged)


class Case:
    """One number's requests, answers and facts.

    Attributes:
        asked: its requests by request_id, in the order of the log.
        decided: its decisions by request_id, in the order in which they were taken.
        answered: offsets of requests with an answer in the outputs, and the decisions among those answers.
        stray_recalls: recalls by request_id that no decision precedes.
        facts: in the order of each topic.
    """

    def __init__(self, number: str, dossier: Dossier, log: PartitionLog, terms: Terms, tally: Tally) -> None:
        """Parse and sort; outputs that belong to nothing are found here."""
        self.number = number
        self.partition = log.number
        self.first_request = log.first_request
        self._log = log
        self._terms = terms
        self._tally = tally
        self._requests = {record.offset: self._read_request(record) for record in dossier.requests}
        self.asked: dict[str, list[Asked]] = defaultdict(list)
        for asked in self._requests.values():
            self.asked[asked.request.request_id].append(asked)
        self.answered: dict[int, list[Decided]] = {}
        self.decided: dict[str, list[Decided]] = defaultdict(list)
        self.stray_recalls: dict[str, list[Published]] = defaultdict(list)
        self.facts = [self._read_fact(*fact) for fact in dossier.facts]
        published = [one for topic, record in dossier.outputs if (one := self._read_output(topic, record)) is not None]
        # The order of the two output topics against each other is that of their log times.
        self._sort_out(sorted(published, key=lambda one: (one.log_time_ms, one.topic, one.offset)))

    def found(self, kind: str, at: Published | Asked, detail: str, request_id: str | None = None) -> None:
        """Report a violation at a record."""
        if isinstance(at, Asked):
            topic, request_id = REQUEST_TOPIC, at.request.request_id
        else:
            topic, request_id = at.topic, at.decision.request_id
        self._tally.found(Finding(kind, topic, self.partition, at.offset, request_id, masked(self.number), detail))

    def _read_request(self, record: LogRecord) -> Asked:
        request, _ = read_event(REQUEST_TOPIC, record.key, record.value)
        judged = self._terms.judged(REQUEST_TOPIC, self.partition, record.offset)
        return Asked(record.offset, record.log_time_ms, cast("CallRequest", request), judged)

    def _read_fact(self, topic: str, record: LogRecord, readable: bool) -> Fact:
        event = cast("NumberEvent", read_event(topic, record.key, record.value)[0]) if readable else None
        return Fact(topic, record.offset, record.log_time_ms, event)

    def _read_output(self, topic: str, record: LogRecord) -> Published | None:
        judged = self._terms.judged(topic, self.partition, record.offset)
        raw = record.value or b""
        try:
            decision = _decode(raw)
            instants = [parse_instant(text) for text in (decision.decided_at, decision.valid_until) if text is not None]
        except (msgspec.DecodeError, ValueError):
            self._unreadable(topic, record, "no decision by the contract", judged=judged)
            return None
        fault = None
        if decision.number != self.number:
            fault = "its key is another number than its field"
        elif decision.approved != (topic == APPROVED) or decision.approved != (decision.valid_until is not None):
            fault = "approved and blocked do not agree with the topic or with valid_until"
        elif decision.kind == "recall" and decision.approved:
            fault = "a recall that approves"
        if fault is not None or not instants:
            self._unreadable(topic, record, fault or "", judged=judged)
            return None
        return Published(topic, record.offset, record.log_time_ms, raw, record.input_offset, decision, judged)

    def _unreadable(self, topic: str, record: LogRecord, detail: str, *, judged: bool) -> None:
        if judged:
            self._tally.found(Finding(UNREADABLE, topic, self.partition, record.offset, None, masked(self.number), detail))

    def _sort_out(self, published: Sequence[Published]) -> None:
        decisions: dict[tuple[str, bytes], list[Published]] = defaultdict(list)
        recalls: dict[tuple[str, bytes], list[Published]] = defaultdict(list)
        for one in published:
            if self._belongs(one):
                (decisions if one.decision.kind == "decision" else recalls)[one.decision.request_id, one.raw].append(one)
        for (request_id, _), places in decisions.items():
            self.decided[request_id].append(self._decided(places))
        for ordered in self.decided.values():
            ordered.sort(key=lambda decided: decided.decided_at)
        for (request_id, _), places in recalls.items():
            self._count_copies(places)
            for offset in {one.input_offset for one in places}:
                if offset in self._requests:
                    self.answered.setdefault(offset, [])
            followed = self._recalled(request_id, parse_instant(places[0].decision.decided_at))
            (followed.recalls if followed is not None else self.stray_recalls[request_id]).append(places[0])

    def _belongs(self, one: Published) -> bool:
        """Whether an output answers a request of this number and id, or one that is too old to be in the log."""
        offset, asked = one.input_offset, self._requests.get(one.input_offset)
        if asked is not None and asked.request.request_id == one.decision.request_id:
            return True
        is_recall = one.decision.kind == "recall"
        if offset == -1 and is_recall and one.decision.request_id in self.asked:
            return True
        if 0 <= offset < self.first_request or (offset == -1 and is_recall and self.first_request > 0):
            self._tally.counts["outputs of older requests"] += one.judged
            return True
        if not one.judged:
            return False
        if (REQUEST_TOPIC, offset) in self._log.unreadable:
            self.found(REJECTED_DECIDED, one, f"{REQUEST_TOPIC}-{self.partition}@{offset} cannot be read")
        elif offset == -1:
            self.found(ORPHAN, one, "no header input-offset, and no request of this id")
        elif asked is not None:
            self.found(ORPHAN, one, f"{REQUEST_TOPIC}-{self.partition}@{offset} has another request_id")
        else:
            where = "belongs to another partition" if (REQUEST_TOPIC, offset) in self._log.misplaced else "is no request of this number"
            self.found(ORPHAN, one, f"{REQUEST_TOPIC}-{self.partition}@{offset} {where}")
        return False

    def _decided(self, places: list[Published]) -> Decided:
        self._count_copies(places)
        decision = places[0].decision
        offsets = sorted({one.input_offset for one in places})
        answered = [self._requests[offset] for offset in offsets if offset in self._requests]
        of_older = offsets[0] not in self._requests
        decided = Decided(
            first=places[0],
            asked=None if of_older else answered[0],
            repeats=answered if of_older else answered[1:],
            decided_at=parse_instant(decision.decided_at),
            valid_until=parse_instant(decision.valid_until) if decision.valid_until is not None else 0,
        )
        for asked in answered:
            self.answered.setdefault(asked.offset, []).append(decided)
        return decided

    def _count_copies(self, places: list[Published]) -> None:
        seen = set()
        for one in places:
            self._tally.counts["copies"] += one.judged and one.input_offset in seen
            seen.add(one.input_offset)

    def _recalled(self, request_id: str, recalled_at: int) -> Decided | None:
        """The decision that a recall follows: the latest of its request that was taken before it."""
        earlier = [one for one in self.decided.get(request_id, ()) if one.decided_at <= recalled_at + CLOCKS_APART]
        return earlier[-1] if earlier else None
