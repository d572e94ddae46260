"""Puts the made-up day on Kafka: facts as fast as they go, then its events at a steady rate.

The load is an open loop: request *n* is due at ``start + n / rate`` whether or not the guard keeps up, and latency is counted
from when a request was due, so that a guard that stalls cannot hide it by slowing its own load down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.day import Event

#: Requests whose answer is awaited; beyond it the oldest are given up as missing, so that memory stays flat.
OUTSTANDING_MAX = 200_000
#: Records that wait for their acknowledgement while facts are loaded.
_IN_FLIGHT = 2000
#: The loop sleeps at least this long; shorter sleeps cost more CPU than they gain.
_TICK_S = 0.001


class SentTimes:
    """When each unanswered request was due (monotonic seconds)."""

    def __init__(self, limit: int = OUTSTANDING_MAX) -> None:
        self._due: dict[str, float] = {}
        self._limit = limit
        self.sent = 0
        self.answered = 0

    def __len__(self) -> int:
        return len(self._due)

    @property
    def missing(self) -> int:
        """Requests that have no decision yet, those given up included."""
        return self.sent - self.answered

    def expect(self, request_id: str, due: float) -> None:
        """A request goes out that was due at ``due``."""
        self.sent += 1
        self._due[request_id] = due
        if len(self._due) > self._limit:
            del self._due[next(iter(self._due))]

    def take(self, request_id: str) -> float | None:
        """A decision came in: when its request was due; None for one that is not awaited (a repeat, or somebody else's)."""
        due = self._due.pop(request_id, None)
        self.answered += due is not None
        return due


def producer_for(settings: Settings) -> AIOKafkaProducer:
    """A producer with acks=all and the default partitioner (murmur2 of the key), as the wire contract wants; not started."""
    return AIOKafkaProducer(**settings.kafka_client(), acks="all", linger_ms=0, request_timeout_ms=10_000)


async def publish(producer: AIOKafkaProducer, settings: Settings, events: Iterable[Event]) -> int:
    """Publish events as fast as the broker takes them, and return when all are acknowledged.

    Returns: how many.

    Raises:
        aiokafka.errors.KafkaError: a record was not acknowledged.
    """
    waiting: list[asyncio.Future[Any]] = []
    count = 0
    for event in events:
        waiting.append(await _send(producer, settings, event))
        count += 1
        if len(waiting) >= _IN_FLIGHT:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
    return count


async def _send(producer: AIOKafkaProducer, settings: Settings, event: Event) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = await producer.send(settings.topic(event.topic), value=event.encoded(), key=event.key.encode())
    return future


class OpenLoop:
    """Sends a stream of events at a rate of call requests; whatever lies between two requests goes out with the second.

    ``failed`` counts records that the broker did not acknowledge; a request among them will be missing its decision.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        settings: Settings,
        events: Iterator[Event],
        *,
        rate: float,
        sent: SentTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is sent yet.

        Args:
            producer: started.
            settings: name the topics.
            events: without end, or until the load is to stop.
            rate: call requests a second, repeats and broken ones included.
            sent: gets the due time of every sound request that is new.
            clock: seconds, the same that the receiving side looks at.

        Raises:
            ValueError: the rate is not above zero.
        """
        if not rate > 0:
            raise ValueError("--rate: want requests a second, more than 0")
        self._producer = producer
        self._settings = settings
        self._events = events
        self._rate = rate
        self._sent = sent
        self._clock = clock
        self.failed = 0

    async def run(self) -> None:
        """Send until cancelled or out of events."""
        start = self._clock()
        requests = 0
        for event in self._events:
            due = start + requests / self._rate
            if (wait := due - self._clock()) > 0:
                await asyncio.sleep(max(wait, _TICK_S))
            if event.request_id is not None:
                self._sent.expect(event.request_id, due)
            try:
                (await _send(self._producer, self._settings, event)).add_done_callback(self._sent_or_not)
            except KafkaError:
                self.failed += 1
            requests += event.topic == "call-requests"
            if not requests % 50:
                # A loop that is behind never waits above: let the receiving side of this process have its turn.
                await asyncio.sleep(0)

    def _sent_or_not(self, future: asyncio.Future[Any]) -> None:
        self.failed += future.cancelled() or future.exception() is not None
