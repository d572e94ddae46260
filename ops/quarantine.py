"""What ``ringfence quarantine`` does: which numbers are suspended now and why, and their release.

Whether a number is suspended is said by its state in Redis. Which numbers to look at is said by rejected-events, because looking at
every state takes as long as there are numbers; only what suspended a number before rejected-events begins needs that (``scan``).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from config.clock import Clock
from config.settings import Settings
from ops.rejected import read
from ops.topic_log import Publish, TopicLog
from rules.e164 import masked
from rules.errors import StateError
from rules.events import validate
from rules.facts import NumberFacts
from rules.instants import format_instant
from rules.suspension import suspended_numbers
from streams.partitioner import partition_of
from streams.state import Store

RELEASES = "quarantine-releases"
_READ_AT_ONCE = 1000
_LOOK_S = 0.1

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, order=True)
class Cause:
    """A rejected event that suspends a number: when it was reported (log time), its id, and what was wrong with it."""

    log_time_ms: int
    id: str
    topic: str
    code: str


@dataclass(frozen=True)
class Suspended:
    """A number that is suspended, or may be: ``confirmed`` says whether its state was read. ``causes``: oldest first, maybe none."""

    number: str
    since_ms: int
    causes: list[Cause]
    confirmed: bool = True

    def as_json(self, *, unmasked: bool) -> dict[str, Any]:
        """What a listing shows."""
        return {
            "number": self.number if unmasked else masked(self.number),
            "since": format_instant(self.since_ms * 1000),
            "confirmed": self.confirmed,
            "causes": [{"id": cause.id, "topic": cause.topic, "code": cause.code} for cause in self.causes],
        }


@dataclass
class Listing:
    """The suspended numbers, longest suspended first; and why some of them could not be confirmed, if so."""

    suspended: list[Suspended] = field(default_factory=list)
    trouble: str | None = None


async def suspended_now(log: TopicLog, store: Store, *, scan: bool) -> Listing:
    """The numbers that are suspended.

    Args:
        log: rejected-events.
        store: Redis. If it does not answer, every number that a rejected event suspended is listed, released ones too, unconfirmed.
        scan: look at the states of all numbers instead of those that rejected-events names.
    """
    causes = await _causes(log)
    listing = Listing()
    numbers: dict[int, list[str]] = defaultdict(list)
    try:
        if scan:
            async for partition, number in store.numbers():
                numbers[partition].append(number)
        else:
            for number in causes:
                numbers[partition_of(number.encode(), log.partitions)].append(number)
        for partition, of_partition in numbers.items():
            for start in range(0, len(of_partition), _READ_AT_ONCE):
                listing.suspended += await _of_partition(store, partition, of_partition[start : start + _READ_AT_ONCE], causes)
    except StateError as error:
        listing.trouble = str(error)
        listing.suspended = [Suspended(number, why[0].log_time_ms, why, confirmed=False) for number, why in causes.items()]
    listing.suspended.sort(key=lambda one: (one.since_ms, one.number))
    return listing


async def _causes(log: TopicLog) -> dict[str, list[Cause]]:
    """By number the rejected events that suspend it, oldest first."""
    causes: dict[str, list[Cause]] = defaultdict(list)
    async for record in log.records():
        event = read(record)
        if event is None:
            continue
        report = event.report
        for number in suspended_numbers(report.topic, event.key, event.original):
            causes[number].append(Cause(event.log_time_ms, event.id, report.topic, report.error.code))
    for why in causes.values():
        why.sort()
    return causes


async def _of_partition(store: Store, partition: int, numbers: list[str], causes: dict[str, list[Cause]]) -> Iterable[Suspended]:
    seen = await store.read_facts(partition, numbers)
    if seen.meta is None:
        raise StateError(
            f"Redis knows nothing of partition {partition}: its state is being read again, or the prefix is another guard's"
        )
    found = {number: seen.facts(number) for number in numbers}
    return [_suspended(number, facts, causes.get(number, [])) for number, facts in found.items() if facts.quarantined]


def _suspended(number: str, facts: NumberFacts, causes: list[Cause]) -> Suspended:
    # A report is written after its original; what is not later than the last release was lifted by it.
    open_causes = [cause for cause in causes if cause.log_time_ms > facts.released_at]
    since_ms = min(facts.suspended_at, open_causes[0].log_time_ms) if open_causes else facts.suspended_at
    return Suspended(number, since_ms, open_causes)


async def is_suspended(store: Store, number: str, partitions: int) -> bool:
    """Whether a number is suspended.

    Raises:
        StateError: Redis does not answer, or knows nothing of the number's partition.
    """
    partition = partition_of(number.encode(), partitions)
    return any(True for _ in await _of_partition(store, partition, [number], {}))


@dataclass(frozen=True)
class Release:
    """A published release: where it is, and when the log took it in."""

    number: str
    place: str
    log_time_ms: int


async def release(settings: Settings, publish: Publish, number: str, by: str, reason: str) -> Release:
    """Publish the release of a number to the number's own partition.

    Raises:
        InputError: a text is too long.
        DeliveryFailed: the broker did not acknowledge it.
    """
    event = {
        "event_id": str(uuid.uuid4()),
        "number": number,
        "at": format_instant(Clock.from_settings(settings).now()),
        "released_by": by,
        "reason": reason,
    }
    validate(RELEASES, event)
    sent = await publish(settings.topic(RELEASES), None, number.encode(), _encode(event))
    return Release(number, f"{sent.topic} {sent.partition}@{sent.offset}", sent.timestamp)


async def applied(store: Store, releases: list[Release], partitions: int, within_s: float) -> dict[str, bool | None]:
    """Wait until the state shows releases.

    Returns:
        For each number whether it is suspended again (a broken event came after the release); None if the state has not shown the
        release within the time.

    Raises:
        StateError: Redis does not answer.
    """
    shown: dict[str, bool | None] = {one.number: None for one in releases}
    deadline = time.monotonic() + within_s
    while True:
        for one in releases:
            facts = (await store.read_facts(partition_of(one.number.encode(), partitions), [one.number])).facts(one.number)
            if facts.released_at >= one.log_time_ms:
                shown[one.number] = facts.quarantined
        if None not in shown.values() or time.monotonic() >= deadline:
            return shown
        await asyncio.sleep(_LOOK_S)
