"""What a guard decides, counted while it happens: the figures behind ``ringfence demo`` and ``ringfence watch``.

```
LiveReader   reads approved-calls, blocked-calls and rejected-events from their ends, without a consumer group
  Statistics   counts; hours of it take no more memory than minutes
    Histogram    latencies in buckets of 2 %
    Snapshot     what a view shows
```

A latency is measured in one of two ways, and a snapshot says which:

* the demo sends the requests itself: from the moment a request was due to the moment its decision was read here, one clock;
* for a running guard: from the broker's log time of the request to that of its decision. Where topics keep the producers' own
  time (CreateTime) these are two clocks, and the label says so.

``decided_at`` is of no use for it: it is the guard's clock, which a rehearsal sets to another day.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from config.settings import Settings
from ops.load import SentTimes
from rules.errors import CannotStart

LatencyKind = Literal["due_to_read", "log_times", "producer_times", "none"]

#: Decisions remembered to tell a repeated record from a second decision: five minutes at 300 requests a second, about 25 MB.
REMEMBERED = 100_000
#: Parties counted by name; whoever comes later is counted as ``others``. Bounds the memory where ids are made up per call.
PARTIES_MAX = 1000
OTHERS = "others"
#: Seconds of history for the sparkline.
HISTORY_S = 120
_RATE_OVER_S = 5
_SLICE_S = 5
_SLICES = 12

_OUTPUTS = ("approved-calls", "blocked-calls", "rejected-events")
#: Between two fetches. Without it each decision is a fetch of its own, and the broker spends its time on us.
_PAUSE_S = 0.01
_LAST_DIGITS = re.compile(rb"(\d+)\D*$")
_LOG_APPEND_TIME = 1


class Seen(msgspec.Struct, frozen=True):
    """The fields of a decision that are counted."""

    request_id: str
    number: str
    campaign_id: str
    advertiser_id: str
    intermediary_id: str | None
    call_centre_id: str | None
    decision: Literal["approved", "blocked"]
    kind: Literal["decision", "recall"]
    basis: str | None
    reasons: list[str]
    decided_at: str


class _Rejected(msgspec.Struct, frozen=True):
    class _Error(msgspec.Struct, frozen=True):
        code: str

    error: _Error


class _Name(msgspec.Struct, frozen=True):
    party_id: str
    name: str | None = None


_seen = msgspec.json.Decoder(Seen).decode
_rejected = msgspec.json.Decoder(_Rejected).decode
_name = msgspec.json.Decoder(_Name).decode


class Histogram:
    """Counts of durations in buckets 2 % wide, from 10 us to about 2.7 hours."""

    _LEAST_S = 1e-5
    _WIDTH = math.log(1.02)
    _BUCKETS = 1048

    def __init__(self) -> None:
        self._counts = [0] * self._BUCKETS
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one duration; what is shorter or longer than the range goes to its edge."""
        bucket = int(math.log(max(seconds, self._LEAST_S) / self._LEAST_S) / self._WIDTH)
        self._counts[min(bucket, self._BUCKETS - 1)] += 1
        self.count += 1

    def quantile(self, share: float) -> float:
        """The duration (seconds) below which a share of the counts lies, within 1 %; 0 without any count."""
        wanted = max(1, math.ceil(share * self.count))
        for bucket, below in enumerate(accumulate(self._counts)):
            if below >= wanted:
                return self._LEAST_S * math.exp((bucket + 0.5) * self._WIDTH)
        return 0.0

    def take_in(self, other: Histogram) -> None:
        """Add another one's counts."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.count += other.count


@dataclass(frozen=True, slots=True)
class Latency:
    """p50 and p99 in seconds of ``count`` decisions."""

    p50: float
    p99: float
    count: int


@dataclass(frozen=True, slots=True)
class PartyCount:
    """Decisions about one party's calls."""

    role: Literal["advertiser", "intermediary", "call centre"]
    party_id: str
    name: str
    approved: int
    blocked: int

    @property
    def total(self) -> int:
        """All decisions."""
        return self.approved + self.blocked

    @property
    def share(self) -> float:
        """Part that was approved, 0 to 1."""
        return self.approved / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures at one moment.

    ``per_second`` has the decisions of the last whole seconds, oldest first. ``reasons``, ``bases`` and ``rejected`` are
    sorted by count; a blocked call may have several reasons. ``contradictions`` are second decisions that differ: none, ever.
    """

    seconds: float
    decided_at: str | None
    approved: int
    blocked: int
    recalls: int
    repeats: int
    contradictions: int
    unreadable: int
    rate: float
    per_second: list[int]
    reasons: list[tuple[str, int]]
    bases: list[tuple[str, int]]
    rejected: list[tuple[str, int]]
    parties: list[PartyCount]
    latency_kind: LatencyKind
    latency: Latency | None
    latency_last_minute: Latency | None

    @property
    def decisions(self) -> int:
        """Requests decided: each counted once."""
        return self.approved + self.blocked

    def as_json(self) -> dict[str, Any]:
        """The figures as one JSON object; times in milliseconds."""

        def times(latency: Latency | None) -> dict[str, float | int] | None:
            if latency is None:
                return None
            return {"p50": round(latency.p50 * 1000, 2), "p99": round(latency.p99 * 1000, 2), "count": latency.count}

        return {
            "seconds": round(self.seconds, 1),
            "decided_at": self.decided_at,
            "decisions": self.decisions,
            "approved": self.approved,
            "blocked": self.blocked,
            "recalls": self.recalls,
            "repeats": self.repeats,
            "contradictions": self.contradictions,
            "unreadable": self.unreadable,
            "decisions_per_s": round(self.rate, 1),
            "reasons": dict(self.reasons),
            "bases": dict(self.bases),
            "rejected": dict(self.rejected),
            "parties": [
                {"role": party.role, "party_id": party.party_id, "approved": party.approved, "blocked": party.blocked}
                for party in self.parties
            ],
            "latency_kind": self.latency_kind,
            "latency_ms": times(self.latency),
            "latency_last_minute_ms": times(self.latency_last_minute),
        }


class Statistics:
    """Counts decisions. Times are monotonic seconds that the caller hands in."""

    def __init__(self, started: float, latency_kind: LatencyKind = "none", names: Mapping[str, str] | None = None) -> None:
        self.names: dict[str, str] = dict(names or {})
        self.latency_kind: LatencyKind = latency_kind
        self._started = started
        self._decided_at: str | None = None
        self._totals = Counter[str]()
        self._reasons = Counter[str]()
        self._bases = Counter[str]()
        self._rejected = Counter[str]()
        self._parties: dict[tuple[str, str], list[int]] = {}
        self._known: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._per_second = Counter[int]()
        self._all = Histogram()
        self._slices: deque[tuple[int, Histogram]] = deque(maxlen=_SLICES)

    def add(self, seen: Seen, raw: bytes, at: float, latency_s: float | None = None) -> bool:
        """Count one record of approved-calls or blocked-calls.

        Args:
            seen: the record.
            raw: its bytes, to tell a record that came twice from a second decision.
            at: when it was read.
            latency_s: how long the decision took, if that is known.

        Returns:
            Whether it is new: not a record that has been counted before.
        """
        key = (seen.number, seen.request_id, seen.kind)
        digest = hash(raw)
        known = self._known.get(key)
        if known is not None:
            self._totals["repeats" if known == digest else "contradictions"] += 1
            return False
        self._known[key] = digest
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        self._decided_at = max(self._decided_at or "", seen.decided_at)
        if seen.kind == "recall":
            self._totals["recalls"] += 1
            return True
        self._totals[seen.decision] += 1
        self._reasons.update(seen.reasons)
        if seen.basis is not None:
            self._bases[seen.basis] += 1
        self._count_parties(seen)
        self._per_second[int(at - self._started)] += 1
        if len(self._per_second) > HISTORY_S:
            del self._per_second[next(iter(self._per_second))]
        if latency_s is not None:
            self._count_latency(latency_s, at)
        return True

    def reject(self, code: str) -> None:
        """Count one record of rejected-events."""
        self._rejected[code] += 1

    def unreadable(self) -> None:
        """Count an output record that is no decision."""
        self._totals["unreadable"] += 1

    def snapshot(self, at: float) -> Snapshot:
        """The figures at a moment."""
        last_minute = Histogram()
        oldest = int(at - self._started) // _SLICE_S - _SLICES
        for number, part in self._slices:
            if number > oldest:
                last_minute.take_in(part)
        per_second = self._history(at)
        recent = per_second[-_RATE_OVER_S:]
        return Snapshot(
            seconds=at - self._started,
            decided_at=self._decided_at,
            approved=self._totals["approved"],
            blocked=self._totals["blocked"],
            recalls=self._totals["recalls"],
            repeats=self._totals["repeats"],
            contradictions=self._totals["contradictions"],
            unreadable=self._totals["unreadable"],
            rate=sum(recent) / len(recent) if recent else 0.0,
            per_second=per_second,
            reasons=_sorted(self._reasons),
            bases=_sorted(self._bases),
            rejected=_sorted(self._rejected),
            parties=self._party_counts(),
            latency_kind=self.latency_kind,
            latency=_latency(self._all),
            latency_last_minute=_latency(last_minute),
        )

    def _count_parties(self, seen: Seen) -> None:
        column = 0 if seen.decision == "approved" else 1
        roles = (
            ("advertiser", seen.advertiser_id),
            ("intermediary", seen.intermediary_id),
            ("call centre", seen.call_centre_id),
        )
        for role, party_id in roles:
            if party_id is None:
                continue
            key = (role, party_id)
            if key not in self._parties and len(self._parties) >= PARTIES_MAX:
                key = (role, OTHERS)
            self._parties.setdefault(key, [0, 0])[column] += 1

    def _count_latency(self, latency_s: float, at: float) -> None:
        self._all.add(latency_s)
        number = int(at - self._started) // _SLICE_S
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append((number, Histogram()))
        self._slices[-1][1].add(latency_s)

    def _history(self, at: float) -> list[int]:
        """Decisions of each whole second so far, zeros included; at most HISTORY_S of them."""
        end = int(at - self._started)
        return [self._per_second[second] for second in range(max(0, end - HISTORY_S), end)]

    def _party_counts(self) -> list[PartyCount]:
        counts = [
            PartyCount(role, party_id, self.names.get(party_id, party_id), approved, blocked)  # type: ignore[arg-type]
            for (role, party_id), (approved, blocked) in self._parties.items()
        ]
        order = {"advertiser": 0, "intermediary": 1, "call centre": 2}
        return sorted(counts, key=lambda party: (order[party.role], -party.total, party.party_id))


def _sorted(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _latency(histogram: Histogram) -> Latency | None:
    return Latency(histogram.quantile(0.5), histogram.quantile(0.99), histogram.count) if histogram.count else None


class _LastWord(logging.Handler):
    """Keeps the last message, and passes none on."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.text = record.getMessage()


@contextmanager
def client_silenced() -> Iterator[_LastWord]:
    """Keep aiokafka's log lines off the screen: a broker that is away logs several a second, in the middle of a view.

    Yields: what holds its last message, the only place where aiokafka says why a connection failed.
    """
    client = logging.getLogger("aiokafka")
    heard, propagated = _LastWord(), client.propagate
    client.addHandler(heard)
    client.propagate = False
    try:
        yield heard
    finally:
        client.removeHandler(heard)
        client.propagate = propagated


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
    ) -> None:
        """Nothing is read yet.

        Args:
            settings: where Kafka is, and the prefix of the topics.
            statistics: what is counted; may be replaced while it runs.
            sent: when each request was due, known to whoever sends them; None measures by log times instead, for which
                call-requests is read as well.
            on_decision: called with every new decision and recall.
        """
        self.statistics = statistics
        self._settings = settings
        self._sent = sent
        self._on_decision = on_decision
        self._logged: OrderedDict[tuple[int, int], tuple[int, int]] = OrderedDict()
        self._consumer: AIOKafkaConsumer | None = None
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
            fetch_max_wait_ms=100,
            request_timeout_ms=10_000,
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
                names = self._settings.topic("*")
                raise CannotStart(f"Kafka at {address} lacks topics {names}; create them with: ringfence topics --create") from error
            except (KafkaError, OSError, ValueError) as error:
                await self.stop()
                raise CannotStart(f"no Kafka answers at {address}: {heard.text or _first_line(error)}") from error

    async def run(self) -> None:
        """Read and count until cancelled. A broker that goes away is waited for."""
        assert self._consumer is not None  # noqa: S101  # started
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=200, max_records=5000)
            except KafkaError:
                await asyncio.sleep(0.5)
                continue
            # Requests first: their log times are needed for the decisions that came along with them.
            for partition, records in sorted(batches.items(), key=lambda item: self._topics[item[0].topic] != "call-requests"):
                self._read(self._topics[partition.topic], partition, records)
            await asyncio.sleep(_PAUSE_S)

    async def stop(self) -> None:
        """Disconnect. Safe to call twice."""
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

    def _read(self, topic: str, partition: TopicPartition, records: Iterable[ConsumerRecord[bytes, bytes]]) -> None:
        for record in records:
            try:
                if topic == "call-requests":
                    self._remember(partition.partition, record)
                elif topic == "parties":
                    self._name(record)
                elif topic == "rejected-events":
                    self.statistics.reject(_rejected(record.value or b"").error.code)
                else:
                    self._count(partition.partition, record)
            except msgspec.DecodeError:
                self.statistics.unreadable()

    def _count(self, partition: int, record: ConsumerRecord[bytes, bytes]) -> None:
        raw = record.value or b""
        seen = _seen(raw)
        at = time.monotonic()
        latency_s = None
        if seen.kind == "decision":
            latency_s = self._since_due(seen, at) if self._sent is not None else self._between_log_times(partition, record)
        if self.statistics.add(seen, raw, at, latency_s) and self._on_decision is not None:
            self._on_decision(seen)

    def _since_due(self, seen: Seen, at: float) -> float | None:
        due = self._sent.take(seen.request_id) if self._sent is not None else None
        return None if due is None else at - due

    def _remember(self, partition: int, record: ConsumerRecord[bytes, bytes]) -> None:
        self._logged[partition, record.offset] = record.timestamp, record.timestamp_type
        if len(self._logged) > REMEMBERED:
            self._logged.popitem(last=False)

    def _between_log_times(self, partition: int, record: ConsumerRecord[bytes, bytes]) -> float | None:
        header = next((value for name, value in record.headers if name == "input-offset"), b"")
        digits = _LAST_DIGITS.search(header)
        logged = self._logged.pop((partition, int(digits[1])), None) if digits is not None else None
        if logged is None:
            return None
        timestamp, kind = logged
        answered: int = record.timestamp
        one_clock = kind == record.timestamp_type == _LOG_APPEND_TIME
        self.statistics.latency_kind = "log_times" if one_clock else "producer_times"
        return max(0, answered - timestamp) / 1000

    def _name(self, record: ConsumerRecord[bytes, bytes]) -> None:
        if record.value is None:
            return
        party = _name(record.value)
        if party.name and len(self.statistics.names) < PARTIES_MAX:
            self.statistics.names[party.party_id] = party.name


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
