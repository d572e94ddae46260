"""When each request was sent and answered, from histories and logs. It judges nothing: that is the auditor's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from chaos.load import Summary
from chaos.recovery import Waits
from config.settings import Settings
from rules.events import REQUEST_TOPIC
from streams.topics import APPROVED, BLOCKED, REJECTED

_LOOK_MS = 1000
_INPUT_OFFSET = "input-offset"
_NEVER = float("inf")

_Place = tuple[int, int]


class _Acknowledged(msgspec.Struct):
    """A line of the histories."""

    topic: str
    partition: int
    offset: int
    sent_at: float


class _Rejection(msgspec.Struct):
    topic: str
    partition: int
    offset: int


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        waits: of each partition, when each acknowledged request was sent and first answered, unix seconds.
        unanswered: partition and offset of the acknowledged requests that have neither a decision nor a rejection in their place.
    """

    waits: dict[int, Waits] = field(default_factory=dict)
    unanswered: list[_Place] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For the report; seconds from the sending of a request to the log time of its answer."""
        waited = sorted(answered - sent for waits in self.waits.values() for sent, answered in waits if answered != _NEVER)
        return {
            "requests_answered": len(waited),
            "requests_unanswered": len(self.unanswered),
            "answer_p50_s": _quantile(waited, 0.5),
            "answer_p99_s": _quantile(waited, 0.99),
            "answer_max_s": _quantile(waited, 1.0),
        }


async def survey(settings: Settings, histories: Path, load: Summary) -> Survey:
    """Read histories and outputs to their ends.

    Args:
        settings: of the guard; the broker is asked directly.
        histories: what was acknowledged.
        load: knows which requests were misplaced; those are answered elsewhere.
    """
    answered = dict[_Place, float]()
    async for record in _records(settings, (APPROVED, BLOCKED)):
        offset = next((value for name, value in record.headers if name == _INPUT_OFFSET), None)
        if offset is not None:
            place, at = (record.partition, int(offset)), record.timestamp / 1000
            answered[place] = min(at, answered.get(place, at))
    elsewhere = set[_Place](load.misplaced)
    async for record in _records(settings, (REJECTED,)):
        rejection = msgspec.json.decode(record.value, type=_Rejection)
        if rejection.topic == REQUEST_TOPIC:
            elsewhere.add((rejection.partition, rejection.offset))
    return await asyncio.to_thread(_join, histories, answered, elsewhere)


def _join(histories: Path, answered: dict[_Place, float], elsewhere: set[_Place]) -> Survey:
    found, waits = Survey(), dict[int, list[tuple[float, float]]]()
    decode = msgspec.json.Decoder(_Acknowledged).decode
    with histories.open("rb") as lines:
        for line in lines:
            record = decode(line)
            place = record.partition, record.offset
            if record.topic != REQUEST_TOPIC or place in elsewhere:
                continue
            at = answered.get(place, _NEVER)
            if at == _NEVER:
                found.unanswered.append(place)
            # The log's clock counts whole milliseconds, and may seem to answer before the question.
            waits.setdefault(record.partition, []).append((record.sent_at, max(record.sent_at, at)))
    found.waits |= waits
    return found


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
            fetched = await consumer.getmany(timeout_ms=_LOOK_MS)
            for records in fetched.values():
                for record in records:
                    yield record
            behind = {tp for tp in behind if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None
