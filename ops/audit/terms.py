"""What an audit goes by: rulebook, memory, bounds and clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka.partitioner import murmur2

from rules.instants import SECOND
from rules.rulebook import Rulebook

MILLISECOND = SECOND // 1000

#: Offsets by topic (name without prefix) and partition.
Offsets = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What an audit goes by.

    Args:
        book: decisions of another rulebook are not taken again.
        partitions: of each topic keyed by number.
        memory: microseconds for which a request is remembered (``RINGFENCE_REQUEST_MEMORY_S``).
        now_ms: log time up to which the logs were read; what is younger than ``bound_ms`` then may still be answered.
        bound_ms: how long an answer or a recall may take.
        tolerance_ms: log times of two topics that are closer than this do not tell an order.
        clock_offset: microseconds by which the guard's clock is ahead of the broker's.
        since: requests, outputs and stops before these offsets are known, and not judged.
    """

    book: Rulebook
    partitions: int
    now_ms: int
    memory: int = 300 * SECOND
    bound_ms: int = 150_000
    tolerance_ms: int = 100
    clock_offset: int = 0
    since: Offsets = field(default_factory=dict)

    def home(self, number: str) -> int:
        """The partition in which a number's records belong, as Kafka's default partitioner has it."""
        return int(murmur2(number.encode()) & 0x7FFFFFFF) % self.partitions

    def young(self, log_time_ms: int) -> bool:
        """Whether something that is due since then may still come."""
        return self.now_ms - log_time_ms < self.bound_ms

    def guard_clock(self, log_time_ms: int) -> int:
        """What the guard's clock showed at a log time (instant)."""
        return log_time_ms * MILLISECOND + self.clock_offset

    def judged(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a record is of this audit, and not only known to it."""
        return offset >= self.since.get(topic, {}).get(partition, 0)
