"""Reads the reference topics whole, in every worker, outside the consumer group, and hands what comes to the reference agents.

An agent of the group would get a share of the partitions only; every worker needs all parties, campaigns and caller numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from config.settings import Settings
from rules.events import REFERENCE_MODELS

_POLL_MS = 200


class ReferenceFeed:
    """A consumer without a group over all reference topics, from their beginning.

    ``applied`` offsets move only when an agent says so, which is what the barrier of a turn waits for.
    """

    def __init__(self, settings: Settings, deliver: Callable[[str, list[Any], int], Awaitable[None]]) -> None:
        self._settings = settings
        self._deliver = deliver
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._applied = dict.fromkeys(REFERENCE_MODELS, -1)
        self._handed_out = dict.fromkeys(REFERENCE_MODELS, -1)
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Connect and begin to read."""
        partitions = [TopicPartition(self._settings.topic(name), 0) for name in REFERENCE_MODELS]
        self._consumer = AIOKafkaConsumer(
            **self._settings.kafka_client(), enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed"
        )
        await self._consumer.start()
        self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning(*partitions)
        self._task = asyncio.create_task(self._read(partitions))

    async def stop(self) -> None:
        """End reading and let go of the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    @property
    def failure(self) -> BaseException | None:
        """What ended the reading, if something did."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    def applied(self, topic: str) -> int:
        """Next offset of a reference topic (name without prefix) whose effect is in memory; -1 before the first position is known."""
        return self._applied[topic]

    def mark_applied(self, topic: str, next_offset: int) -> None:
        """Say that everything below an offset is in memory."""
        self._applied[topic] = max(self._applied[topic], next_offset)
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> Coroutine[None, None, object]:
        """Wait until more has been applied; from this call on, not from when it is awaited, so that nothing in between is missed."""
        return self._changed.wait()

    async def _read(self, partitions: list[TopicPartition]) -> None:
        consumer = self._consumer
        assert consumer is not None  # start() set it
        while True:
            fetched = await consumer.getmany(*partitions, timeout_ms=_POLL_MS)
            for tp in partitions:
                # Positions also move over records that compaction or aborted transactions have taken out.
                position = await consumer.position(tp)
                topic = tp.topic.removeprefix(self._settings.topic_prefix)
                if tp in fetched or position > self._handed_out[topic]:
                    self._handed_out[topic] = position
                    await self._deliver(topic, fetched.get(tp, []), position)
