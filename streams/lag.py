"""How far the logs of a worker's partitions are worked off, looked at from time to time, and since when they are not.

Two questions about a log have two answers. Is it *late*: was something there at an earlier look that is still not worked off? Facts
count up to the high watermark, because requests wait for them up to there. Does it *stand still*: is there something to read, and
nothing has been worked off for long? That counts what can be read (the last stable offset), for nobody gets past an open transaction,
and it counts only the time in which the servers answered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from config.settings import Settings
from rules.errors import StateError
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC
from streams.barrier import Barrier
from streams.partition import Partition
from streams.reference_feed import ReferenceFeed

_LONGEST_LOOK_S = 5.0  # what lies between two looks counts as waiting up to here; beyond it the process itself was stopped


@dataclass(slots=True)
class Log:
    """One partition of a topic (name without prefix), from look to look. Instants are of the monotonic clock."""

    topic: str
    partition: int
    done: int = -1
    end: int = 0
    caught_up: bool = False
    _goal: int = 0
    _since: float = 0.0
    _stood_s: float = 0.0
    _looked: bool = False

    def look(self, done: int, end: int, readable: int, now: float, served_s: float) -> None:
        """Take in what is there now.

        Args:
            done: next offset that is not worked off.
            end: up to where it has to be worked off.
            readable: up to where it can be read.
            now: the time.
            served_s: seconds since the last look in which the servers answered.
        """
        if not self._looked:
            self._looked, self._goal, self._since = True, end, now
        if done < self.done:  # begun again, from further back
            self.caught_up = False
        self._stood_s = self._stood_s + served_s if done == self.done and done < readable else 0.0
        self.done, self.end = done, end
        if done >= self._goal:
            self.caught_up, self._goal, self._since = True, end, now

    def late_s(self, now: float) -> float:
        """For how many seconds something has not been worked off, up to now; 0 if all is that was there at the last look."""
        return now - self._since if self.done < self._goal else 0.0

    @property
    def stood_s(self) -> float:
        """For how many seconds nothing was worked off though there was something to read and the servers answered."""
        return self._stood_s


@dataclass(slots=True)
class LagWatch:
    """Looks at the logs of some partitions; ``requests_done`` says how far the requests of one are acknowledged."""

    settings: Settings
    barrier: Barrier
    feed: ReferenceFeed
    requests_done: Callable[[int], int]
    _consumer: AIOKafkaConsumer | None = None
    _reference: dict[str, Log] = field(default_factory=lambda: {topic: Log(topic, 0) for topic in REFERENCE_MODELS})
    _logs: dict[Partition, list[Log]] = field(default_factory=dict)
    _looked_at: float = 0.0

    async def start(self) -> None:
        """Connect."""
        self._consumer = AIOKafkaConsumer(**self.settings.kafka_client(), isolation_level="read_committed", request_timeout_ms=5_000)
        await self._consumer.start()

    async def stop(self) -> None:
        """Let go of the connection."""
        if self._consumer is not None:
            await self._consumer.stop()

    @property
    def logs(self) -> list[Log]:
        """The logs of the last look; those of a partition that was not ready then are not among them."""
        return [*self._reference.values(), *(log for logs in self._logs.values() for log in logs)]

    @property
    def records(self) -> dict[str, int]:
        """By topic (name without prefix), how many records were not worked off at the last look."""
        found: Counter[str] = Counter()
        for log in self.logs:
            found[log.topic] += max(0, log.end - max(0, log.done))
        return dict(found)

    @property
    def seconds(self) -> dict[str, float]:
        """By topic (name without prefix), the longest for which something has not been worked off; see :meth:`Log.late_s`."""
        now, found = monotonic(), dict[str, float]()
        for log in self.logs:
            found[log.topic] = max(log.late_s(now), found.get(log.topic, 0.0))
        return found

    async def look(self, partitions: Iterable[Partition], *, served: bool) -> None:
        """Look at the reference topics and at the partitions that are ready.

        Args:
            partitions: those that the worker owns.
            served: whether the servers have done what they were asked for lately; if not, no standing still is counted.

        Raises:
            StateError: the broker does not answer.
        """
        # Partitions that came into being after the start belong to no number; `check_topics` speaks of them.
        ready = [one for one in partitions if one.ready and one.number < self.settings.partitions]
        ends, readable = await asyncio.gather(self.barrier.ends(one.number for one in ready), self._readable(ready))
        now = monotonic()
        served_s = min(now - self._looked_at, _LONGEST_LOOK_S) if served else 0.0
        self._looked_at = now
        for topic, log in self._reference.items():
            log.look(self.feed.applied(topic), ends.of(topic, 0), ends.of(topic, 0), now, 0.0)
        logs = {}
        for one in ready:
            if not one.ready:  # lost, or to be rebuilt, since we asked
                continue
            logs[one] = self._logs.get(one) or [Log(topic, one.number) for topic in (REQUEST_TOPIC, *FACT_MODELS)]
            for log in logs[one]:
                can_be_read = readable[log.topic, one.number]
                is_requests = log.topic == REQUEST_TOPIC
                done = self.requests_done(one.number) if is_requests else one.applied(log.topic)
                log.look(done, can_be_read if is_requests else ends.of(log.topic, one.number), can_be_read, now, served_s)
        self._logs = logs

    async def _readable(self, partitions: Iterable[Partition]) -> dict[tuple[str, int], int]:
        if self._consumer is None:
            raise StateError("the watch over the topics is not connected")
        topics = {self.settings.topic(name): name for name in (REQUEST_TOPIC, *FACT_MODELS)}
        try:
            ends = await self._consumer.end_offsets([TopicPartition(topic, one.number) for one in partitions for topic in topics])
        except (KafkaError, OSError) as error:
            raise StateError(f"the broker does not say where the topics end: {error!r}") from None
        return {(topics[tp.topic], tp.partition): end for tp, end in ends.items()}
