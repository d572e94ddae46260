"""Logs of one partition, as a guard without faults would leave them, for tests that plant faults in them. No broker is needed."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from config.rulebook import load_rulebook
from ops.audit.check import check_partition
from ops.audit.findings import Tally
from ops.audit.histories import Histories
from ops.audit.partition import PHASES, PartitionLog
from ops.audit.records import APPROVED, BLOCKED, REJECTED, LogRecord
from ops.audit.references import ReferenceLog
from ops.audit.terms import Terms
from rules.decide import decide
from rules.decision import Decision
from rules.errors import InputError
from rules.events import FACT_MODELS, REFERENCE_KEYS, REFERENCE_MODELS, REQUEST_TOPIC, read_event
from rules.facts import NumberFacts
from rules.instants import parse_instant
from rules.recall import Stop, recall, stop_of
from rules.reference import Reference
from rules.suspension import suspended_numbers
from tests.scene import NOW, REFERENCE, home, numbers

PARTITIONS, PARTITION = 4, 0
BOOK = load_rulebook()

encode = msgspec.json.Encoder().encode


def of_here(count: int = 1) -> list[str]:
    """Numbers of the world's partition."""
    return numbers(count, PARTITION, PARTITIONS)


class LogWorld:
    """Puts records into logs, one a second by the broker's clock, which is the guard's too, and answers requests as a guard would."""

    def __init__(self) -> None:
        self.now_ms = parse_instant(NOW) // 1000
        self.logs: dict[str, list[LogRecord]] = {
            topic: [] for topic in (REQUEST_TOPIC, *FACT_MODELS, *REFERENCE_MODELS, APPROVED, BLOCKED, REJECTED)
        }
        self.begins: dict[str, int] = {}
        self.histories = Histories()
        for topic, entry in REFERENCE:
            self.put(topic, entry)

    # --- What comes in -----------------------------------------------------------------------------------------------------

    def put(self, topic: str, value: dict[str, Any], after_ms: int = 1000) -> LogRecord:
        """Put an event under its own key."""
        key = value[REFERENCE_KEYS.get(topic, "number")]
        return self.put_raw(topic, key.encode(), encode(value), after_ms=after_ms)

    def put_raw(self, topic: str, key: bytes | None, value: bytes | None, headers: Any = (), after_ms: int = 1000) -> LogRecord:
        """Put any bytes, some time after the record before."""
        self.now_ms += after_ms
        log = self.logs[topic]
        offset = log[-1].offset + 1 if log else self.begins.get(topic, 0)
        record = LogRecord(offset, self.now_ms, key, value, headers)
        log.append(record)
        return record

    # --- What a guard answers ----------------------------------------------------------------------------------------------

    def ask(self, value: dict[str, Any], **decided: Any) -> tuple[LogRecord, Decision]:
        """Put a request and answer it. Returns both."""
        asked = self.put(REQUEST_TOPIC, value)
        decision = self.decide(asked, **decided)
        self.publish(decision, asked.offset)
        return asked, decision

    def decide(self, asked: LogRecord, as_of: dict[str, int] | None = None) -> Decision:
        """Decide a request by what the logs hold now, or held at ``as_of``."""
        request, _ = read_event(REQUEST_TOPIC, asked.key, asked.value)
        known = self.ends() | (as_of or {})
        facts, reference = NumberFacts(), Reference()
        for topic in FACT_MODELS:
            for record in self.logs[topic]:
                if record.offset < known[topic]:
                    self._apply(facts, topic, record, request.number)
        for topic in REFERENCE_MODELS:
            for record in self.logs[topic]:
                if record.offset >= known[topic]:
                    continue
                if record.value is None:
                    reference.remove(topic, record.key.decode())
                else:
                    reference.put(topic, read_event(topic, record.key, record.value)[0])
        return decide(request, facts, reference, BOOK, self.now_ms * 1000, known)

    def publish(self, decision: Decision, input_offset: int | None, /, **changes: Any) -> LogRecord:
        """Publish a decision, or what ``changes`` make of it."""
        decision = msgspec.structs.replace(decision, **changes)
        headers = [("input-offset", str(input_offset).encode())] if input_offset is not None else []
        topic = APPROVED if decision.approved else BLOCKED
        return self.put_raw(topic, decision.number.encode(), encode(decision), headers, after_ms=5)

    def recall(self, approval: Decision, stop: LogRecord, topic: str = "objections", input_offset: int | None = None) -> Decision:
        """Publish the recall that a stop calls for."""
        try:
            cause = stop_of(read_event(topic, stop.key, stop.value)[0], topic, stop.offset, stop.log_time_ms)
        except InputError:
            cause = Stop(topic, stop.offset, stop.log_time_ms)
        assert cause is not None
        record = recall(approval, [cause], BOOK.version, self.now_ms * 1000, self.ends())
        self.publish(record, input_offset)
        return record

    def reject(self, record: LogRecord, code: str, topic: str = REQUEST_TOPIC) -> LogRecord:
        """Report a record in rejected-events."""
        event = {
            "topic": topic,
            "partition": PARTITION,
            "offset": record.offset,
            "error": {"code": code, "field": "", "message": ""},
            "value": base64.b64encode(record.value or b"").decode(),
        }
        return self.put_raw(REJECTED, record.key, encode(event), after_ms=5)

    def ends(self) -> dict[str, int]:
        """The next offsets of fact and reference topics."""
        return {topic: self.end(topic) for topic in (*FACT_MODELS, *REFERENCE_MODELS)}

    def end(self, topic: str) -> int:
        """The next offset of a topic."""
        return self.logs[topic][-1].offset + 1 if self.logs[topic] else self.begins.get(topic, 0)

    def _apply(self, facts: NumberFacts, topic: str, record: LogRecord, number: str) -> None:
        if record.key is not None and home(record.key.decode(), PARTITIONS) != PARTITION:
            return
        try:
            event, _ = read_event(topic, record.key, record.value)
        except InputError:
            if number in suspended_numbers(topic, record.key, record.value):
                facts.suspend(record.log_time_ms)
            return
        if event.number == number:
            facts.apply(event, record.log_time_ms)

    # --- What the auditor says ---------------------------------------------------------------------------------------------

    def audit(self, later_s: float = 1000, **terms: Any) -> Tally:
        """Audit the logs ``later_s`` after the last record."""
        agreed, log = self.audited(later_s, **terms)
        references = ReferenceLog(self._bounds())
        for topic in REFERENCE_MODELS:
            for record in self.logs[topic]:
                references.add(topic, record)
        tally = Tally(keep=20)
        check_partition(log, references, self.histories, agreed, tally)
        return tally

    def audited(self, later_s: float = 1000, **terms: Any) -> tuple[Terms, PartitionLog]:
        """What an audit goes by, and the logs as it reads them."""
        agreed = Terms(**{"book": BOOK, "partitions": PARTITIONS, "now_ms": self.now_ms + int(later_s * 1000), **terms})
        log = PartitionLog(PARTITION, agreed, self._bounds())
        for topics in PHASES:
            for topic in topics:
                for record in self.logs[topic]:
                    log.add(topic, record)
        return agreed, log

    def _bounds(self) -> dict[str, tuple[int, int]]:
        return {topic: (self.begins.get(topic, 0), self.end(topic)) for topic in self.logs}

    def violations(self, **arguments: Any) -> dict[str, int]:
        """The violations that an audit finds."""
        return dict(self.audit(**arguments).violations)
