"""The logs of one partition, sorted by number: what an audit keeps between reading and judging.

Only raw bytes are kept, and of facts only those of numbers that somebody asked for: so outputs and requests have to be read before
facts. Every number is parsed and judged by itself (``ops.audit.case``), and then forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import msgspec

from ops.audit.moves import Moved, digest
from ops.audit.positions import Positions
from ops.audit.records import APPROVED, BLOCKED, REJECTED, LogRecord
from ops.audit.terms import Terms
from rules.e164 import is_e164
from rules.errors import InputError
from rules.events import FACT_MODELS, MAX_RECORD_BYTES, REQUEST_TOPIC, NumberEvent, read_event
from rules.requests import CallRequest
from rules.suspension import suspended_numbers

#: The order in which a partition is read.
PHASES = ((APPROVED, BLOCKED, REJECTED, REQUEST_TOPIC), tuple(FACT_MODELS))

#: Header of a null by which the finder of a broken record has another partition suspend a number; the record itself is reported.
_FORWARDED = "ringfence-forwarded"


class Dossier(msgspec.Struct, eq=False):
    """The raw records of one number: requests that can be read, outputs by topic, facts by topic (None for a suspension)."""

    requests: list[LogRecord] = []
    outputs: list[tuple[str, LogRecord]] = []
    facts: list[tuple[str, LogRecord, bool]] = []


class Unreadable(msgspec.Struct, frozen=True):
    """A record that cannot be read: the guard has to reject it."""

    log_time_ms: int
    code: str


class _Error(msgspec.Struct, frozen=True):
    code: str


class _Rejected(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int
    error: _Error


_decode_rejected = msgspec.json.Decoder(_Rejected).decode


class PartitionLog:
    """Everything of one partition.

    Attributes:
        positions: of each fact topic.
        first_request: the first offset of requests that was read; what answers earlier ones is not judged.
        misplaced: requests and facts that belong elsewhere, by topic and offset.
        forwarded: broken facts that suspend numbers of other partitions, whose owners have to be told.
        unreadable: requests and facts that cannot be read, by topic and offset; nulls that another partition forwarded are none.
        rejections: codes in rejected-events, by topic and offset.
    """

    def __init__(self, number: int, terms: Terms, bounds: Mapping[str, tuple[int, int]], first_request: int | None = None) -> None:
        """Nothing is read yet.

        Args:
            number: of the partition.
            terms: for the partition of a key.
            bounds: first offset and end of each topic keyed by number (names without prefix).
            first_request: where reading of requests begins, if not at the first offset.
        """
        self.number = number
        self.positions = {topic: Positions(*bounds[topic]) for topic in FACT_MODELS}
        self.first_request = bounds[REQUEST_TOPIC][0] if first_request is None else first_request
        self.misplaced: dict[tuple[str, int], Moved] = {}
        self.forwarded: list[Moved] = []
        self.unreadable: dict[tuple[str, int], Unreadable] = {}
        self.rejections: dict[tuple[str, int], str] = {}
        self._terms = terms
        self._dossiers: dict[str, Dossier] = {}

    def add(self, topic: str, record: LogRecord) -> None:
        """Take in the next record of a topic (name without prefix), in the order of :data:`PHASES`."""
        if topic == REQUEST_TOPIC:
            self._add_request(record)
        elif topic in self.positions:
            self._add_fact(topic, record)
        elif topic == REJECTED:
            self._add_rejection(record)
        else:
            number = (record.key or b"").decode("utf-8", "replace")
            self._dossier(number).outputs.append((topic, record))

    def dossiers(self) -> Iterator[tuple[str, Dossier]]:
        """Every number that was asked for or answered; each is let go of when the next one is taken."""
        while self._dossiers:
            yield self._dossiers.popitem()

    def _dossier(self, number: str) -> Dossier:
        dossier = self._dossiers.get(number)
        if dossier is None:
            dossier = self._dossiers[number] = Dossier()
        return dossier

    def _add_request(self, record: LogRecord) -> None:
        if self._is_misplaced(REQUEST_TOPIC, record):
            return
        try:
            request, _ = read_event(REQUEST_TOPIC, record.key, record.value)
        except InputError as error:
            self.unreadable[REQUEST_TOPIC, record.offset] = Unreadable(record.log_time_ms, error.code)
            return
        self._dossier(cast("CallRequest", request).number).requests.append(record)

    def _add_fact(self, topic: str, record: LogRecord) -> None:
        self.positions[topic].add(record.offset, record.log_time_ms)
        if self._is_misplaced(topic, record):
            return
        try:
            event, _ = read_event(topic, record.key, record.value)
        except InputError as error:
            if not any(name == _FORWARDED for name, _ in record.headers):
                self.unreadable[topic, record.offset] = Unreadable(record.log_time_ms, error.code)
            self._suspend(topic, record)
            return
        dossier = self._dossiers.get(cast("NumberEvent", event).number)
        if dossier is not None:
            dossier.facts.append((topic, record, True))

    def _suspend(self, topic: str, record: LogRecord) -> None:
        """Note whom a broken record suspends; a number of another partition is suspended there, by a null that tells of it."""
        for number in suspended_numbers(topic, record.key, record.value):
            home = self._terms.home(number)
            if home != self.number:
                told = record._replace(key=number.encode(), value=None)
                self.forwarded.append(Moved(topic, self.number, record.offset, record.log_time_ms, home, number.encode(), digest(told)))
            elif number in self._dossiers:
                self._dossiers[number].facts.append((topic, record._replace(value=None), False))

    def _add_rejection(self, record: LogRecord) -> None:
        try:
            rejected = _decode_rejected(record.value or b"")
        except msgspec.DecodeError:
            return
        if rejected.partition == self.number:
            self.rejections[rejected.topic, rejected.offset] = rejected.error.code

    def _is_misplaced(self, topic: str, record: LogRecord) -> bool:
        """Whether a record belongs in another partition, where it is published again: its key is a number of there."""
        if record.key is None or len(record.value or b"") > MAX_RECORD_BYTES:
            return False
        key = record.key.decode("utf-8", "replace")
        if not is_e164(key) or (home := self._terms.home(key)) == self.number:
            return False
        moved = Moved(topic, self.number, record.offset, record.log_time_ms, home, record.key, digest(record))
        self.misplaced[topic, record.offset] = moved
        return True
