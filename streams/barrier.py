"""The barrier of a turn (G1): what the broker has acknowledged when the batch is frozen is applied before the batch is decided.

It asks the end offsets of every fact topic of the partitions in hand, and of the reference topics, and waits until they are applied.
Ends are high watermarks: an acknowledged fact may lie behind a transaction that is still open, where nobody can read it yet, and
requests have to wait for it. What is applied is a position of a reader of committed records, so that the facts of an aborted
transaction count for nothing and are passed over together with its marker.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from time import monotonic

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from rules.errors import StateError
from rules.events import FACT_MODELS, REFERENCE_MODELS
from streams.partition import Partition
from streams.reference_feed import ReferenceFeed
from streams.trouble import Trouble


class Barrier:
    """Asks the broker where the logs end and waits for partitions to get there."""

    def __init__(self, settings: Settings, feed: ReferenceFeed) -> None:
        self._settings = settings
        self._feed = feed
        self._consumer: AIOKafkaConsumer | None = None
        self.trouble = Trouble()

    async def start(self) -> None:
        """Connect, and learn where the topics are led: 100 ms a topic, which no take-over should have to wait for."""
        self._consumer = AIOKafkaConsumer(**self._settings.kafka_client(), isolation_level="read_uncommitted", request_timeout_ms=5_000)
        await self._consumer.start()
        with suppress(StateError):
            await self.ends([0])

    async def stop(self) -> None:
        """Let go of the connection."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def ends(self, partitions: Iterable[int]) -> Ends:
        """Where the fact topics of some partitions and the reference topics end now (0.3 ms on loopback).

        Raises:
            StateError: the broker does not answer.
        """
        if self._consumer is None:
            raise StateError("the barrier is not connected")
        topic = self._settings.topic
        asked = [TopicPartition(topic(name), number) for number in partitions for name in FACT_MODELS]
        asked += [TopicPartition(topic(name), 0) for name in REFERENCE_MODELS]
        try:
            answered: Mapping[TopicPartition, int] = await self._consumer.end_offsets(asked)
        except (KafkaError, OSError) as error:
            self.trouble.met()
            raise StateError(f"the broker does not say where the topics end: {error!r}") from None
        if any(tp not in answered for tp in asked):
            raise StateError("the broker does not know the end of every topic")
        return Ends({(tp.topic.removeprefix(self._settings.topic_prefix), tp.partition): end for tp, end in answered.items()})

    async def reached(self, partition: Partition, ends: Ends, within_s: float) -> bool:
        """Wait until a partition has applied up to the ends. Returns False if it has not within the time."""
        deadline = monotonic() + within_s
        while not self.is_reached(partition, ends):
            left = deadline - monotonic()
            if left <= 0 or partition.revoked:
                return False
            waiters = [asyncio.ensure_future(partition.changed()), asyncio.ensure_future(self._feed.changed())]
            try:
                await asyncio.wait(waiters, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiter in waiters:
                    waiter.cancel()
        return True

    async def references_reached(self, ends: Ends, within_s: float) -> None:
        """Wait until the reference topics are in memory up to the ends.

        Raises:
            StateError: they are not within the time.
        """
        try:
            async with asyncio.timeout(within_s):
                while not self._are_references_reached(ends):
                    await self._feed.changed()
        except TimeoutError:
            raise StateError(f"the reference topics were not read within {within_s:.0f} s") from None

    def _are_references_reached(self, ends: Ends) -> bool:
        return all(self._feed.applied(topic) >= ends.of(topic, 0) for topic in REFERENCE_MODELS)

    def is_reached(self, partition: Partition, ends: Ends) -> bool:
        """Whether everything below the ends is applied."""
        return (
            partition.ready
            and all(partition.applied(topic) >= ends.of(topic, partition.number) for topic in FACT_MODELS)
            and self._are_references_reached(ends)
        )


class Ends:
    """End offsets by topic (name without prefix) and partition."""

    __slots__ = ("_ends",)

    def __init__(self, ends: dict[tuple[str, int], int] | None) -> None:
        self._ends = ends

    def of(self, topic: str, partition: int) -> int:
        """The end offset of one partition."""
        return self._ends[topic, partition] if self._ends is not None else sys.maxsize


#: Ends that were not asked for, and that nothing ever reaches.
OUT_OF_REACH = Ends(None)
