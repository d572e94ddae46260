"""Reads a guard's outputs as they come, for ``ringfence demo`` and ``ringfence watch``.

```
LiveReader    reads approved-calls, blocked-calls and rejected-events from their ends, without a consumer group
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
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from config.settings import Settings
from ops.client_log import client_silenced
from ops.load import SentTimes
from ops.log_times import LogTimes
from ops.rejected import Report
from ops.snapshot import LatencyKind
from ops.statistics import PARTIES_MAX, Seen, Statistics
from rules.errors import CannotStart
from streams.disconnect import disconnect

_UNDER_WAY_MS = 2000
_OUTPUTS = ("approved-calls", "blocked-calls", "rejected-events")


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
        fetch_min_bytes: int = 1,
        fetch_max_wait_ms: int = 100,
    ) -> None:
        """Nothing is read yet.

        Args:
            settings: where Kafka is, and the prefix of the topics.
            statistics: what is counted; may be replaced while it runs.
            sent: when each request was due, known to whoever sends them; None measures by log times instead, for which
                call-requests is read as well.
            on_decision: called with every new decision and recall.
            on_output: called with every output record (name of its topic without prefix, record, what was read), repeats included.
            fetch_min_bytes: the broker answers at once with so many, else after ``fetch_max_wait_ms``.
            fetch_max_wait_ms: how long it waits for more.
        """
        self.statistics = statistics
        self._settings = settings
        self._sent = sent
        self._on_decision = on_decision
        self._on_output = on_output
        self._fetching = {"fetch_min_bytes": fetch_min_bytes, "fetch_max_wait_ms": fetch_max_wait_ms}
        self._log_times = LogTimes()
        self._consumer: AIOKafkaConsumer | None = None
        self._next: dict[TopicPartition, int] = {}
        self._level_ms: dict[TopicPartition, int] = {}
        self._newest_ms = 0
        #: A log time before which every record has been read; what is on its way from the broker has two seconds to arrive.
        self.settled_ms = 0
        self._topics = {settings.topic(name): name for name in _OUTPUTS}
        if sent is None:
            self._topics |= {settings.topic(name): name for name in ("call-requests", "parties")}

    async def start(self) -> None:
        """Connect and go to the ends of the topics; what is written from now on will be read.

        Raises:
            CannotStart: the broker does not answer, or a topic is not there.
        """
        consumer = AIOKafkaConsumer(
            *self._topics,
            **self._settings.kafka_client(),
            group_id=None,
            auto_offset_reset="latest",
            enable_auto_commit=False,
            request_timeout_ms=10_000,
            **self._fetching,
        )
        self._consumer = consumer
        address = self._settings.kafka
        with client_silenced() as heard:
            try:
                await consumer.start()
                await consumer.seek_to_end()
                parties = [tp for tp in consumer.assignment() if self._topics[tp.topic] == "parties"]
                if parties:
                    await consumer.seek_to_beginning(*parties)
            except UnknownTopicOrPartitionError as error:
                await self.stop()
                lacking = f"Kafka at {address} lacks topics {self._settings.topic('*')}"
                raise CannotStart(f"{lacking}; create them with: ringfence topics --create") from error
            except (KafkaError, OSError, ValueError) as error:
                await self.stop()
                raise CannotStart(f"no Kafka answers at {address}: {heard.text or _first_line(error)}") from error

    async def run(self) -> None:
        """Read and count until cancelled. A broker that goes away is waited for."""
        assert self._consumer is not None  # started
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=200, max_records=5000)
            except KafkaError:
                await asyncio.sleep(0.5)
                continue
            for tp, records in batches.items():
                for record in records:
                    self._read(record)
                self._next[tp] = records[-1].offset + 1
                self._newest_ms = max(self._newest_ms, records[-1].timestamp)
            for tp in self._consumer.assignment():
                if (self._consumer.highwater(tp) or 0) <= self._next.get(tp, 0):
                    self._level_ms[tp] = self._newest_ms
            self.settled_ms = min(self._level_ms.values(), default=self._newest_ms) - _UNDER_WAY_MS

    async def behind(self) -> int:
        """How many records the broker has that were not read yet.

        Raises:
            KafkaError, OSError: it does not answer.
        """
        assert self._consumer is not None  # started
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        positions = {tp: await self._consumer.position(tp) for tp in ends}
        return sum(max(0, int(end) - int(positions[tp])) for tp, end in ends.items())

    async def stop(self) -> None:
        """Disconnect. Safe to call twice."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await disconnect(consumer)

    def _read(self, record: ConsumerRecord[bytes, bytes]) -> None:
        topic, raw = self._topics[record.topic], record.value or b""
        try:
            if topic == "call-requests":
                self._measured(self._log_times.request(record))
            elif topic == "parties":
                self._name(record)
            elif topic == "rejected-events":
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
