"""Reads what a guard knew when it decided: the request, the facts about its number, and the reference entries, up to ``as_of``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import TopicPartition

from config.settings import Settings
from ops.audit.case import Case
from ops.audit.findings import Tally
from ops.audit.partition import PartitionLog
from ops.audit.records import LogRecord
from ops.audit.references import ReferenceLog
from ops.audit.terms import Terms
from ops.explain.search import Output, Tell
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC
from rules.rulebook import Rulebook
from streams.log_reader import LogReader

#: Every output that was found belongs to the request, whether or not the log still holds the request itself.
_ALL_OLDER = sys.maxsize


class Known:
    """The logs of one number, as far as they were looked up.

    Attributes:
        case: the number's requests, answers and facts.
        log: its partition; of facts it has those of the number alone.
        references: parties, campaigns and caller numbers, at any offset.
    """

    def __init__(self, partition: int, partitions: int, book: Rulebook, bounds: dict[str, tuple[int, int]]) -> None:
        """Nothing is known yet. ``bounds``: first offset and end of each topic (names without prefix)."""
        self._terms = Terms(book=book, partitions=partitions, now_ms=0)
        self.log = PartitionLog(partition, self._terms, bounds, first_request=_ALL_OLDER)
        self.references = ReferenceLog(bounds)

    def add(self, topic: str, record: LogRecord) -> None:
        """Take in a record, of outputs and requests before facts."""
        (self.references if topic in REFERENCE_MODELS else self.log).add(topic, record)

    def case_of(self, number: str) -> Case | None:
        """Everything about a number, sorted out; None if nothing was added of it. The log is empty afterwards."""
        return next((Case(number, one, self.log, self._terms, Tally(0)) for of, one in self.log.dossiers() if of == number), None)


async def look_up(settings: Settings, log: LogReader, book: Rulebook, outputs: Sequence[Output], tell: Tell) -> Known:
    """Read what the decisions in some outputs of one number rest on.

    Args:
        settings: of the guard.
        log: connected.
        book: the rulebook.
        outputs: of one number, in any order; at least one.
        tell: told how far the reading is.
    """
    number, partition = outputs[0].decision.number, outputs[0].place.partition
    tps = {topic: TopicPartition(settings.topic(topic), partition) for topic in (REQUEST_TOPIC, *FACT_MODELS)}
    tps |= {topic: TopicPartition(settings.topic(topic), 0) for topic in REFERENCE_MODELS}
    firsts, ends = await log.since(tps.values(), 0), await log.ends(tps.values())
    bounds = {topic: (firsts[tp], ends[tp]) for topic, tp in tps.items()}
    known = Known(partition, settings.partitions, book, bounds)
    reader = _Reader(settings, log, known, number, tell)

    for output in sorted(outputs, key=lambda one: (one.record.log_time_ms, one.place)):
        known.add(output.place.topic, output.record)
    for offset in _asked(outputs, *bounds[REQUEST_TOPIC]):
        await reader.read({tps[REQUEST_TOPIC]: (offset, offset + 1)}, "the request")
    for topics, what in ((REFERENCE_MODELS, "parties and campaigns"), (FACT_MODELS, f"facts in partition {partition}")):
        limits = {topic: max(one.decision.as_of.get(topic, 0) for one in outputs) for topic in topics}
        await reader.read({tps[topic]: (bounds[topic][0], min(limit, bounds[topic][1])) for topic, limit in limits.items()}, what)
    return known


def _asked(outputs: Iterable[Output], begin: int, end: int) -> list[int]:
    """Offsets of the requests that the log still holds: of those that one record answers, the first, for which it was decided."""
    first: dict[bytes | None, int] = {}
    for output in outputs:
        offset = output.record.input_offset
        if begin <= offset < end:
            first[output.record.value] = min(offset, first.get(output.record.value, offset))
    return sorted(set(first.values()))


class _Reader:
    """Reads ranges into what is known, leaving out facts of other numbers unparsed."""

    def __init__(self, settings: Settings, log: LogReader, known: Known, number: str, tell: Tell) -> None:
        self._settings = settings
        self._log = log
        self._known = known
        self._key = number.encode()
        self._digits = self._key[1:]
        self._tell = tell

    async def read(self, ranges: dict[TopicPartition, tuple[int, int]], what: str) -> None:
        read = 0

        async def take(records: list[Any]) -> None:
            nonlocal read
            read += len(records)
            self._tell(what, read)
            for record in records:
                topic = record.topic.removeprefix(self._settings.topic_prefix)
                if topic not in FACT_MODELS or self._concerns(record):
                    kept = LogRecord(record.offset, record.timestamp, record.key, record.value, record.headers)
                    self._known.add(topic, kept)

        await self._log.read(ranges, take)

    def _concerns(self, record: Any) -> bool:  # aiokafka's ConsumerRecord
        """Whether a fact is about the number, or is a broken record that may name it."""
        return record.key == self._key or self._digits in (record.value or b"")
