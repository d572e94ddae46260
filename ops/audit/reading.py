"""Reads the logs of a guard from Kafka: committed records, without a consumer group, up to the ends of when the audit began."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.audit.partition import PHASES
from ops.audit.records import APPROVED, BLOCKED, REJECTED, LogRecord
from ops.audit.terms import Offsets
from ops.client_log import client_silenced, connecting
from rules.errors import CannotStart
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC
from streams.disconnect import disconnect

_OUTPUTS = (APPROVED, BLOCKED, REJECTED)
_PER_NUMBER = (*_OUTPUTS, REQUEST_TOPIC, *FACT_MODELS)
_STALLED_S = 60.0
#: Approvals live this long at most (dialling 15 minutes ahead, as a rule, and a minute more); with --from, this much is read before it.
_BACKGROUND_S = 1800

Place = tuple[str, int]
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read. Places are a topic (name without prefix) and a partition.

    ``bounds``: first offset that the broker has, and the end; ``starts``: where reading begins, if later; ``now_ms``: when the ends
    were taken.
    """

    bounds: Mapping[Place, tuple[int, int]]
    starts: Mapping[Place, int] = field(default_factory=dict)
    now_ms: int = 0

    def of(self, partition: int) -> dict[str, tuple[int, int]]:
        """First offset and end by topic, of one partition of the topics keyed by number."""
        return {topic: self.bounds[topic, partition] for topic in _PER_NUMBER}

    def references(self) -> dict[str, tuple[int, int]]:
        """First offset and end of the reference topics."""
        return {topic: self.bounds[topic, 0] for topic in REFERENCE_MODELS}

    def start(self, place: Place) -> int:
        """Where reading begins."""
        return max(self.starts.get(place, 0), self.bounds[place][0])

    def size(self) -> int:
        """How many offsets are read."""
        return sum(max(0, end - self.start(place)) for place, (_, end) in self.bounds.items())


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that has reached the broker.

    Raises:
        CannotStart: no broker answers, or it stops to.
    """
    with client_silenced() as heard:
        consumer = AIOKafkaConsumer(
            **settings.kafka_client(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=4 << 20,
            request_timeout_ms=20_000,
        )
        try:
            await consumer.start()
            yield consumer
        except (KafkaError, OSError) as error:
            raise CannotStart(f"Kafka at {settings.kafka} (RINGFENCE_KAFKA) cannot be read: {heard.text or repr(error)}") from None
        finally:
            await disconnect(consumer)


async def make_plan(settings: Settings, since: Offsets) -> Plan:
    """Take the ends of all topics.

    Outputs come first: whatever stands in them rests on requests and facts before the ends that are taken afterwards.

    Raises:
        CannotStart: no broker answers, or the topics are not those of this guard.
    """
    await check_topics(settings)
    async with connected(settings) as consumer:
        outputs = _places(_OUTPUTS, settings.partitions)
        inputs = _places((REQUEST_TOPIC, *FACT_MODELS), settings.partitions) | _places(REFERENCE_MODELS, 1)
        ends = await consumer.end_offsets(_tps(settings, outputs))
        ends |= await consumer.end_offsets(_tps(settings, inputs))
        now_ms = time.time_ns() // 1_000_000
        begins = await consumer.beginning_offsets(list(ends))
        bounds = {_place(settings, tp): (begins[tp], end) for tp, end in ends.items()}
        plan = Plan(bounds, now_ms=now_ms)
        return Plan(bounds, await _starts(consumer, settings, plan, since), now_ms)


async def read_references(settings: Settings, plan: Plan, add: Callable[[str, LogRecord], None]) -> None:
    """Read the reference topics whole."""
    await read_places(settings, plan, _places(REFERENCE_MODELS, 1), add)


async def read_places(settings: Settings, plan: Plan, places: Iterable[Place], add: Callable[[str, LogRecord], None]) -> None:
    """Read some partitions of some topics."""
    async with connected(settings) as consumer:
        await _read(consumer, settings, plan, places, add, lambda _records: None)


async def read_partition(
    settings: Settings, plan: Plan, partition: int, add: Callable[[str, LogRecord], None], advance: Advance
) -> None:
    """Read one partition of all topics keyed by number: outputs and requests, then facts."""
    async with connected(settings) as consumer:
        for topics in PHASES:
            await _read(consumer, settings, plan, {(topic, partition) for topic in topics}, add, advance)


async def _read(
    consumer: AIOKafkaConsumer,
    settings: Settings,
    plan: Plan,
    places: Iterable[Place],
    add: Callable[[str, LogRecord], None],
    advance: Advance,
) -> None:
    left = {
        TopicPartition(settings.topic(topic), partition): plan.bounds[topic, partition][1]
        for topic, partition in places
        if plan.start((topic, partition)) < plan.bounds[topic, partition][1]
    }
    if not left:
        return
    consumer.assign(list(left))
    for tp in left:
        consumer.seek(tp, plan.start(_place(settings, tp)))
    deadline = time.monotonic() + _STALLED_S
    while left:
        fetched = await consumer.getmany(*left, timeout_ms=200, max_records=5000)
        for tp, records in fetched.items():
            topic, end = _place(settings, tp)[0], left[tp]
            for record in records:
                if record.offset < end:
                    add(topic, LogRecord(record.offset, record.timestamp, record.key, record.value, record.headers))
            advance(len(records))
        for tp, end in list(left.items()):
            # Positions also move over the markers of transactions, which may be the last thing in a log.
            if await consumer.position(tp) >= end:
                del left[tp]
                consumer.pause(tp)
        if fetched:
            deadline = time.monotonic() + _STALLED_S
        elif left and time.monotonic() > deadline:
            raise CannotStart(f"Kafka at {settings.kafka} gave no record for {_STALLED_S:.0f} s: {', '.join(tp.topic for tp in left)}")


async def _starts(consumer: AIOKafkaConsumer, settings: Settings, plan: Plan, since: Offsets) -> dict[Place, int]:
    """Where reading of requests and outputs begins: some time before ``since``, because repeats and recalls look back."""
    starts = {}
    for partition, offset in since.get(REQUEST_TOPIC, {}).items():
        if (REQUEST_TOPIC, partition) not in plan.bounds:
            raise CannotStart(f"--from: there is no partition {partition} of {REQUEST_TOPIC}")
        from_ms = await _log_time(consumer, settings, plan, (REQUEST_TOPIC, partition), offset)
        background_ms = (_BACKGROUND_S + settings.request_memory_s) * 1000
        tps = _tps(settings, {(topic, partition) for topic in (*_OUTPUTS, REQUEST_TOPIC)})
        found = await consumer.offsets_for_times(dict.fromkeys(tps, max(0, from_ms - background_ms)))
        for tp, at in found.items():
            place = _place(settings, tp)
            starts[place] = at.offset if at is not None else plan.bounds[place][1]
            if (known := since.get(place[0], {}).get(partition)) is not None:
                starts[place] = min(starts[place], known)
    return starts


async def _log_time(consumer: AIOKafkaConsumer, settings: Settings, plan: Plan, place: Place, offset: int) -> int:
    """Log time of the first record at or after an offset; the time of the ends if there is none."""
    begin, end = plan.bounds[place]
    (tp,) = _tps(settings, {place})
    consumer.assign([tp])
    consumer.seek(tp, max(begin, offset))
    while await consumer.position(tp) < end:
        fetched = await consumer.getmany(tp, timeout_ms=1000, max_records=1)
        for record in fetched.get(tp, ()):
            return int(record.timestamp)
    return plan.now_ms


async def check_topics(settings: Settings) -> None:
    """Look whether the topics of a guard are there, with the partitions that the settings say.

    Raises:
        CannotStart: no broker answers, or the topics are not those of this guard.
    """
    admin = AIOKafkaAdminClient(**settings.kafka_client(), request_timeout_ms=15_000)
    with connecting(settings):
        try:
            await admin.start()
            existing = set(await admin.list_topics())
            wanted = {**dict.fromkeys(_PER_NUMBER, settings.partitions), **dict.fromkeys(REFERENCE_MODELS, 1)}
            lacking = [settings.topic(topic) for topic in wanted if settings.topic(topic) not in existing]
            if lacking:
                raise CannotStart(f"Kafka at {settings.kafka} lacks topics: {', '.join(lacking)}")
            for topic in await admin.describe_topics([settings.topic(topic) for topic in wanted]):
                count = wanted[topic["topic"].removeprefix(settings.topic_prefix)]
                if len(topic["partitions"]) != count:
                    found = f"{topic['topic']} has {len(topic['partitions'])} partitions, not {count}"
                    raise CannotStart(f"{found}: set RINGFENCE_PARTITIONS as the guard has it")
        finally:
            await admin.close()


def _places(topics: Iterable[str], partitions: int) -> set[Place]:
    return {(topic, partition) for topic in topics for partition in range(partitions)}


def _tps(settings: Settings, places: Iterable[Place]) -> list[TopicPartition]:
    return [TopicPartition(settings.topic(topic), partition) for topic, partition in sorted(places)]


def _place(settings: Settings, tp: TopicPartition) -> Place:
    return tp.topic.removeprefix(settings.topic_prefix), tp.partition
