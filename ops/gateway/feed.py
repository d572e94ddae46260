"""Everything that a gateway reads from Kafka: one reader of the output topics for questions, streams and figures alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.explain.places import Place
from ops.gateway.asking import Asking
from ops.gateway.hub import Event, Hub
from ops.gateway.timeline import Timeline
from ops.live import LiveReader
from ops.rejected import Report
from ops.statistics import Seen, Statistics
from streams.tasks import Tasks

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_ANSWER_S = 3.0
#: A gateway whose reader is further behind answers nobody in time.
_BEHIND_MAX = 20_000


class Feed:
    """Reads, and passes on what it reads.

    ``trouble`` is why the gateway cannot answer now, by the last look; None if it can.
    """

    def __init__(self, settings: Settings, asking: Asking, fail: Callable[[BaseException], None]) -> None:
        """Nothing is read yet.

        Args:
            settings: where Kafka is, and the prefix of the topics.
            asking: gets every output record.
            fail: called with an error that ends the reading.
        """
        started = time.monotonic()
        self.hub = Hub()
        self.timeline = Timeline(started)
        self.started = started
        self.trouble: str | None = "starting"
        self._asking = asking
        self._reader = LiveReader(
            settings,
            Statistics(started),
            on_decision=self._counted,
            on_output=self._on_output,
        )
        self._tasks = Tasks(fail)

    @property
    def statistics(self) -> Statistics:
        """What was counted since the gateway started."""
        return self._reader.statistics

    async def start(self) -> None:
        """Go to the ends of the topics and read on from there.

        Raises:
            CannotStart: the broker does not answer, or a topic is not there.
        """
        await self._reader.start()
        for task in (self._reader.run(), self._watch()):
            self._tasks.start(task)

    async def stop(self) -> None:
        """Read no more."""
        self._tasks.cancel()
        await self._reader.stop()

    def _on_output(self, topic: str, record: ConsumerRecord[bytes, bytes], read: Seen | Report) -> None:
        self._asking.on_output(record, read)
        if isinstance(read, Seen):
            value = record.value or b""
            self.hub.publish(Event(Place(topic, record.partition, record.offset), self._reader.settled_ms, read, value))

    def _counted(self, seen: Seen) -> None:
        self.timeline.add(seen, time.monotonic())

    async def _watch(self) -> None:
        """Ask the broker again and again whether it is there: the client's own reader says nothing when it is not."""
        while True:
            trouble = await self._look()
            if trouble != self.trouble:
                (log.info if trouble is None else log.warning)("gateway ready" if trouble is None else "gateway not ready", why=trouble)
            self.trouble = trouble
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> str | None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                behind = await self._reader.behind()
        except (KafkaError, OSError) as error:
            return f"Kafka does not answer: {type(error).__name__}"
        return f"{behind} decisions are not read yet" if behind > _BEHIND_MAX else None
