"""Finds the records of a request in the outputs: newest first, in steps, so that fresh ones cost no reading of a quarter year."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import TopicPartition

from config.settings import Settings
from ops.audit.records import LogRecord
from ops.explain.places import Place
from rules.decision import Decision
from rules.e164 import without
from streams.log_reader import LogReader
from streams.partitioner import partition_of
from streams.topics import APPROVED, BLOCKED

Ranges = Mapping[TopicPartition, tuple[int, int]]
#: Told what is read and how many records of it were, every now and then.
Tell = Callable[[str, int], None]

_MINUTE_MS = 60_000
#: How far back each step looks (milliseconds of log time); after the last one, everything.
_STEPS = {
    "the last hour": 60 * _MINUTE_MS,
    "the last day": 24 * 60 * _MINUTE_MS,
    "the last week": 7 * 24 * 60 * _MINUTE_MS,
}
#: A recall stands this far from its approval at most, beside the time for which an approval is valid: guards may have been away.
_LATE_MS = 30 * _MINUTE_MS

_decode = msgspec.json.Decoder(Decision).decode
_quoted = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Output:
    """A record of an output topic."""

    place: Place
    record: LogRecord
    decision: Decision


class Search:
    """Looks for the records of one request_id."""

    def __init__(self, settings: Settings, log: LogReader, request_id: str, number: str | None, tell: Tell) -> None:
        """Nothing is read yet; ``number`` None: of any number."""
        self._settings = settings
        self._log = log
        self._request_id = request_id
        self._number = number
        self._needle = _quoted(request_id)  # as decisions are written, which saves parsing those of others
        self._tell = tell

    async def newest(self, since_ms: int, now_ms: int) -> list[Output]:
        """The records in the newest stretch of log time that holds any; none if nothing since ``since_ms`` does."""
        partitions = range(self._settings.partitions)
        if self._number is not None:
            partitions = range(home := partition_of(self._number.encode(), len(partitions)), home + 1)
        tps = [self._tp(topic, partition) for topic in (APPROVED, BLOCKED) for partition in partitions]
        ends = await self._log.ends(tps)
        starts = {stretch: max(since_ms, now_ms - age_ms) for stretch, age_ms in _STEPS.items()} | {"everything before": since_ms}
        for stretch, start_ms in starts.items():
            begins = await self._log.since(tps, start_ms)
            found = await self.read({tp: (begins[tp], ends[tp]) for tp in tps}, stretch)
            if found or start_ms == since_ms:
                return found
            ends = begins
        return []

    async def at(self, place: Place) -> list[Output]:
        """The record at a place, if it is one of the request.

        Who looks at masked records knows an id that was made of a number in its masked form only; here that will do.
        """
        tp = self._tp(place.topic, place.partition)
        if place.partition >= self._settings.partitions or place.offset >= (await self._log.ends([tp]))[tp]:
            return []

        found = list[Output]()

        async def take(records: list[Any]) -> None:
            for output in filter(None, map(self._read_output, records)):
                decision = output.decision
                if self._request_id in (decision.request_id, without(decision.number, decision.request_id)):
                    self._request_id, self._needle = decision.request_id, _quoted(decision.request_id)
                    found.append(output)

        await self._log.read({tp: (place.offset, place.offset + 1)}, take)
        return found

    async def around(self, output: Output, valid_ms: int) -> list[Output]:
        """What may stand in the other topic beside a record: the recalls of an approval, or the approval of a recall.

        Args:
            output: one record of the request.
            valid_ms: for how long approvals are valid at most.
        """
        then, reach = output.record.log_time_ms, valid_ms + _LATE_MS
        if output.decision.approved:
            topic, stretch = BLOCKED, (then, then + reach)
        elif output.decision.kind == "recall":
            topic, stretch = APPROVED, (then - reach, then + 1)
        else:
            return []
        tp = self._tp(topic, output.place.partition)
        begin, end = [(await self._log.since([tp], max(0, time_ms)))[tp] for time_ms in stretch]
        return await self.read({tp: (begin, end)}, f"recalls and approvals around {output.place}")

    async def read(self, ranges: Ranges, what: str) -> list[Output]:
        """The records of the request in some ranges."""
        found, read = list[Output](), 0

        async def take(records: list[Any]) -> None:
            nonlocal read
            read += len(records)
            self._tell(what, read)
            found.extend(output for record in records if (output := self._output(record)) is not None)

        await self._log.read(ranges, take)
        return found

    def _output(self, record: Any) -> Output | None:  # aiokafka's ConsumerRecord
        if record.value is None or self._needle not in record.value:
            return None
        output = self._read_output(record)
        return output if output is not None and output.decision.request_id == self._request_id else None

    def _read_output(self, record: Any) -> Output | None:  # aiokafka's ConsumerRecord
        try:
            decision = _decode(record.value or b"")
        except msgspec.DecodeError:
            return None
        if self._number not in (None, decision.number):
            return None
        topic = record.topic.removeprefix(self._settings.topic_prefix)
        kept = LogRecord(record.offset, record.timestamp, record.key, record.value, record.headers)
        return Output(Place(topic, record.partition, record.offset), kept, decision)

    def _tp(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.topic(topic), partition)
