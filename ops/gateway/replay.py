"""What a reader of the event stream missed, read from Kafka again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.explain.places import Place
from ops.gateway.hub import Event, Filter
from ops.statistics import Seen
from rules.errors import StateError
from streams.log_reader import LogReader
from streams.outputs import OUTPUTS

_LAST_EVENT_ID = re.compile(r"(?:(?:approved|blocked)-[0-9]{1,9}@[0-9]{1,18})?~([0-9]{1,15})")
_AHEAD = 4  # batches that may wait for the reader
#: How many may read again at once; others wait for their turn.
REPLAYS_MAX = 4

_decode = msgspec.json.Decoder(Seen).decode
_Batch = list[Event] | StateError | None


def resume_ms(last_event_id: str) -> int | None:
    """The log time that a ``Last-Event-ID`` resumes from; None if it is none of ours."""
    found = _LAST_EVENT_ID.fullmatch(last_event_id)
    return int(found[1]) if found is not None else None


class Replay:
    """One reader's missed events: those since a log time."""

    def __init__(self, settings: Settings, wanted: Filter, since_ms: int) -> None:
        self._settings = settings
        self._wanted = wanted
        self._since_ms = since_ms
        self._ends: dict[tuple[str, int], int] = {}

    def had(self, event: Event) -> bool:
        """Whether a live event is among those that were read again."""
        return event.place.offset < self._ends.get((event.place.topic, event.place.partition), 0)

    async def events(self) -> AsyncGenerator[list[Event], None]:
        """The events in batches, in order within a partition; a reader that is slow slows down only this.

        Raises:
            StateError: Kafka does not answer.
        """
        batches: asyncio.Queue[_Batch] = asyncio.Queue(_AHEAD)
        reader = LogReader(self._settings, "read_committed")
        reading = asyncio.create_task(self._read(reader, batches))
        try:
            while (batch := await batches.get()) is not None:
                if isinstance(batch, StateError):
                    raise batch
                yield batch
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await reader.stop()

    async def _read(self, reader: LogReader, batches: asyncio.Queue[_Batch]) -> None:
        names = {self._settings.topic(name): name for name in OUTPUTS}
        outputs = [TopicPartition(topic, number) for topic in names for number in range(self._settings.partitions)]

        async def take(records: list[Any]) -> None:
            await batches.put([event for record in records if (event := self._event(names, record)) is not None])

        try:
            await reader.start()
            ends = await reader.ends(outputs)
            self._ends = {(names[tp.topic], tp.partition): end for tp, end in ends.items()}
            begins = await reader.since(outputs, self._since_ms)
            await reader.read({tp: (begins[tp], ends[tp]) for tp in outputs}, take)
            await batches.put(None)
        except (StateError, KafkaError, OSError) as error:
            await batches.put(StateError(str(error)))

    def _event(self, names: dict[str, str], record: Any) -> Event | None:  # aiokafka's record
        raw = record.value or b""
        try:
            seen = _decode(raw)
        except msgspec.MsgspecError:
            return None
        place = Place(names[record.topic], record.partition, record.offset)
        # Until all of it has been read, whoever is cut off has to begin where this began.
        return Event(place, self._since_ms, seen, raw) if self._wanted.match(seen) else None
