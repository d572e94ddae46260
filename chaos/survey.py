"""What the logs hold after a storm: when each request was sent and answered, and totals. It judges nothing: that is the auditor's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from chaos.load import Summary
from chaos.recovery import Waits
from config.settings import Settings
from rules.events import REQUEST_TOPIC
from streams.topics import APPROVED, BLOCKED, REJECTED

_SILENT_MS = 10_000
#: Topics whose records may be what a recall rests on.
_STOPS = ("objections", "consents", "call-outcomes", "relationships")
_INPUT_OFFSET = "input-offset"

_Place = tuple[int, int]


class _Acknowledged(msgspec.Struct):
    """A line of the histories."""

    topic: str
    partition: int
    offset: int
    sent_at: float


class _Output(msgspec.Struct):
    """What is looked at of a decision."""

    request_id: str
    number: str
    decision: str
    kind: str
    reasons: list[str] = []
    evidence: list[str] = []


class _Rejection(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class _Event(msgspec.Struct):
    event_id: str


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        waits: of each partition, when each acknowledged request was sent and answered.
        approved: requests whose first answer is an approval.
        blocked: requests whose first answer is a block.
        unanswered: acknowledged requests in their own partition without a decision and without a rejection: partition and offset.
        refusals: requests whose first answer gives an S_ code, by code.
        recalls: requests whose approval was taken back.
        recall_latencies_s: from when the log took the fact in, or the approval if that came later, until the recall.
        repeated: answers beyond the first to one and the same request record.
    """

    waits: dict[int, Waits] = field(default_factory=dict)
    approved: int = 0
    blocked: int = 0
    unanswered: list[_Place] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    recalls: int = 0
    recall_latencies_s: list[float] = field(default_factory=list)
    repeated: int = 0

    @property
    def answered(self) -> int:
        """Requests that were decided."""
        return self.approved + self.blocked

    @property
    def approved_share(self) -> float:
        """Of the requests that were decided, how many were approved."""
        return self.approved / self.answered if self.answered else 0.0

    def totals(self) -> dict[str, Any]:
        """As figures for the report; seconds."""
        latencies = sorted(self.recall_latencies_s)
        waited = sorted(answered - sent for waits in self.waits.values() for sent, answered in waits if answered != float("inf"))
        return {
            "requests_answered": self.answered,
            "approved_share": round(self.approved_share, 4),
            "unanswered": len(self.unanswered),
            "answer_p50_s": _quantile(waited, 0.5),
            "answer_p99_s": _quantile(waited, 0.99),
            "answer_max_s": _quantile(waited, 1.0),
            "recalls": self.recalls,
            "recall_p50_s": round(median(latencies), 3) if latencies else None,
            "recall_p99_s": _quantile(latencies, 0.99),
            "recall_max_s": _quantile(latencies, 1.0),
            "refusals": dict(sorted(self.refusals.items())),
            "answers_repeated": self.repeated,
        }


async def survey(settings: Settings, histories: Path, load: Summary) -> Survey:
    """Read histories and logs to their ends.

    Args:
        settings: of the guard; the broker is asked directly.
        histories: what was acknowledged.
        load: knows which requests were misplaced.
    """
    reader = _Reader()
    async for record in _records(settings, _STOPS):
        reader.stop(record)
    async for record in _records(settings, (APPROVED, BLOCKED)):
        reader.output(record)
    rejected = set[_Place]()
    async for record in _records(settings, (REJECTED,)):
        rejection = msgspec.json.decode(record.value, type=_Rejection)
        if rejection.topic == REQUEST_TOPIC:
            rejected.add((rejection.partition, rejection.offset))
    sent = await asyncio.to_thread(_sent, histories)
    return reader.result(sent, rejected | set(load.misplaced))


class _Reader:
    """Takes in the outputs, record by record."""

    def __init__(self) -> None:
        self.found = Survey()
        self._stopped_ms: dict[str, int] = {}
        self._answered_ms: dict[_Place, int] = {}
        self._approved_ms: dict[tuple[str, str], int] = {}
        self._recalls: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self._decode = msgspec.json.Decoder(_Output).decode

    def stop(self, record: Any) -> None:  # aiokafka's record
        """A fact that may take approvals back."""
        try:
            event = msgspec.json.decode(record.value, type=_Event)
        except msgspec.DecodeError:
            return
        self._stopped_ms.setdefault(event.event_id, record.timestamp)

    def output(self, record: Any) -> None:  # aiokafka's record
        """A decision or a recall."""
        output = self._decode(record.value)
        identity = output.number, output.request_id
        if output.kind == "recall":
            earliest = self._recalls.setdefault(identity, (record.timestamp, output.evidence))
            if record.timestamp < earliest[0]:
                self._recalls[identity] = record.timestamp, output.evidence
        offset = next((value for name, value in record.headers if name == _INPUT_OFFSET), None)
        if offset is None:
            return
        place = record.partition, int(offset)
        answered = self._answered_ms.get(place)
        if answered is not None:
            self.found.repeated += output.kind == "decision"
            self._answered_ms[place] = min(answered, record.timestamp)
            return
        self._answered_ms[place] = record.timestamp
        self._count(output, identity, record.timestamp)

    def _count(self, output: _Output, identity: tuple[str, str], timestamp_ms: int) -> None:
        if output.decision == "approved":
            self.found.approved += 1
            self._approved_ms.setdefault(identity, timestamp_ms)
        else:
            self.found.blocked += 1
        self.found.refusals.update(code for code in output.reasons if code.startswith("S_"))

    def result(self, sent: dict[int, list[tuple[int, float]]], elsewhere: set[_Place]) -> Survey:
        """Put everything together.

        Args:
            sent: offset and time of the acknowledged requests of each partition.
            elsewhere: requests that are not answered in their place: rejected or misplaced.
        """
        found = self.found
        for partition, records in sent.items():
            waits = list[tuple[float, float]]()
            for offset, sent_at in records:
                place = partition, offset
                answered_ms = self._answered_ms.get(place)
                if answered_ms is not None:
                    # The log's clock counts milliseconds, and may seem to answer before the question.
                    waits.append((sent_at, max(sent_at, answered_ms / 1000)))
                elif place not in elsewhere:
                    waits.append((sent_at, float("inf")))
                    found.unanswered.append(place)
            found.waits[partition] = waits
        found.recalls = len(self._recalls)
        for identity, (recalled_ms, evidence) in self._recalls.items():
            causes = [self._stopped_ms[event_id] for event_id in evidence if event_id in self._stopped_ms]
            if causes:
                since_ms = max(min(causes), self._approved_ms.get(identity, 0))
                found.recall_latencies_s.append(max(0, recalled_ms - since_ms) / 1000)
        return found


def _sent(histories: Path) -> dict[int, list[tuple[int, float]]]:
    decode = msgspec.json.Decoder(_Acknowledged).decode
    sent = dict[int, list[tuple[int, float]]]()
    with histories.open("rb") as lines:
        for line in lines:
            record = decode(line)
            if record.topic == REQUEST_TOPIC:
                sent.setdefault(record.partition, []).append((record.offset, record.sent_at))
    return sent


async def _records(settings: Settings, topics: Iterable[str]) -> AsyncIterator[Any]:
    """Every record of some topics, in order within a partition."""
    consumer = AIOKafkaConsumer(
        **settings.kafka_client(), auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20, isolation_level="read_committed"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(settings.topic(topic), number) for topic in topics for number in range(settings.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        behind = {tp for tp in partitions if ends[tp] > 0}
        while behind:
            fetched = await consumer.getmany(timeout_ms=_SILENT_MS)
            for records in fetched.values():
                for record in records:
                    yield record
            behind = {tp for tp in behind if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None
