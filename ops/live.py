"""Reads a guard's outputs as they come, for ``ringfence demo`` and ``ringfence watch``.

```
LiveReader    reads approved-calls, blocked-calls and rejected-events from their ends (follower.py)
  Statistics    counts; hours of it take no more memory than minutes (statistics.py, histogram.py)
    Snapshot      what a view shows (snapshot.py)
  SentTimes     the demo sends the requests itself: latency from when one was due to when its decision was read here (load.py)
  LogTimes      for a guard that is fed by others: latency from log time to log time (log_times.py)
```
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiokafka import ConsumerRecord

from config.settings import Settings
from ops.follower import Follower
from ops.load import SentTimes
from ops.log_times import LogTimes
from ops.rejected import Report
from ops.snapshot import LatencyKind
from ops.statistics import PARTIES_MAX, Seen, Statistics
from rules.events import REQUEST_TOPIC
from streams.topics import APPROVED, BLOCKED, REJECTED

_OUTPUTS = (APPROVED, BLOCKED, REJECTED)
_PARTIES = "parties"


class _Name(msgspec.Struct, frozen=True):
    party_id: str
    name: str | None = None


_seen = msgspec.json.Decoder(Seen).decode
_rejected = msgspec.json.Decoder(Report).decode
_name = msgspec.json.Decoder(_Name).decode


class LiveReader:
    """Reads a guard's outputs as they come and counts them.

    Lifecycle: ``start`` -> ``run`` (until cancelled) -> ``stop``. It belongs to no consumer group, commits nothing and disturbs
    nobody.
    """

    def __init__(
        self,
        settings: Settings,
        statistics: Statistics,
        sent: SentTimes | None = None,
        on_decision: Callable[[Seen], None] | None = None,
        on_output: Callable[[str, ConsumerRecord[bytes, bytes], Seen | Report], None] | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            settings: where Kafka is, and the prefix of the topics.
            statistics: what is counted; may be replaced while it runs.
            sent: when each request was due, known to whoever sends them; None measures by log times instead, for which
                call-requests is read as well.
            on_decision: called with every new decision and recall.
            on_output: called with every output record (name of its topic without prefix, record, what was read), repeats included.
        """
        self.statistics = statistics
        self._sent = sent
        self._on_decision = on_decision
        self._on_output = on_output
        self._log_times = LogTimes()
        self._outputs = Follower(settings, _OUTPUTS, self._read)
        self._followers = [self._outputs]
        if sent is None:
            self._followers.append(Follower(settings, (REQUEST_TOPIC, _PARTIES), self._read, whole=[_PARTIES], in_lots=True))

    @property
    def settled_ms(self) -> int:
        """A log time before which every output has been read."""
        return self._outputs.settled_ms

    async def start(self) -> None:
        """Connect and go to the ends of the topics; what is written from now on will be read.

        Raises:
            CannotStart: the broker does not answer, or a topic is not there.
        """
        try:
            for follower in self._followers:
                await follower.start()
        except BaseException:
            await self.stop()
            raise

    async def run(self) -> None:
        """Read and count until cancelled. A broker that goes away is waited for."""
        await asyncio.gather(*(follower.run() for follower in self._followers))

    async def behind(self) -> int:
        """How many outputs the broker has that were not read yet.

        Raises:
            KafkaError, OSError: it does not answer.
        """
        return await self._outputs.behind()

    async def stop(self) -> None:
        """Disconnect. Safe to call twice."""
        for follower in self._followers:
            await follower.stop()

    def _read(self, topic: str, record: ConsumerRecord[bytes, bytes]) -> None:
        raw = record.value or b""
        try:
            if topic == REQUEST_TOPIC:
                self._measured(self._log_times.request(record))
            elif topic == _PARTIES:
                self._name(record)
            elif topic == REJECTED:
                report = _rejected(raw)
                if self._on_output is not None:
                    self._on_output(topic, record, report)
                self.statistics.reject(report.error.code)
            else:
                self._count(topic, record, raw)
        except msgspec.DecodeError:
            self.statistics.unreadable()

    def _count(self, topic: str, record: ConsumerRecord[bytes, bytes], raw: bytes) -> None:
        seen, at = _seen(raw), time.monotonic()
        if self._on_output is not None:
            self._on_output(topic, record, seen)
        if not self.statistics.add(seen, raw, at):
            return
        if seen.kind == "decision":
            if self._sent is None:
                self._measured(self._log_times.decision(record))
            elif (due := self._sent.take(seen.request_id)) is not None:
                self._measured(("due_to_read", at - due))
        if self._on_decision is not None:
            self._on_decision(seen)

    def _measured(self, latency: tuple[LatencyKind, float] | None) -> None:
        if latency is not None:
            self.statistics.add_latency(*latency, at=time.monotonic())

    def _name(self, record: ConsumerRecord[bytes, bytes]) -> None:
        if record.value is None:
            return
        party = _name(record.value)
        if party.name and len(self.statistics.names) < PARTIES_MAX:
            self.statistics.names[party.party_id] = party.name
