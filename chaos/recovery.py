"""How long the guard took to recover, from when requests were sent and when they were answered."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

#: (sent_at, answered_at) of the acknowledged requests of one partition, in unix seconds; answered_at is infinite where none came.
Waits = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a fault cost.

    Attributes:
        recovery_s: from the fault's start until every partition had answered a request that was sent after it; None: one never did.
        longest_wait_s: the longest that a request waited that was sent between this fault's start and the next one's; None: for ever.
    """

    recovery_s: float | None
    longest_wait_s: float | None


def recoveries(waits: Mapping[int, Waits], starts: Sequence[float]) -> list[Recovery]:
    """What each fault cost, in the order of ``starts``.

    Args:
        waits: of every partition.
        starts: when each fault had taken effect, unix seconds, ascending.
    """
    timelines = [_Timeline(of_partition) for of_partition in waits.values()]
    found = []
    for index, start in enumerate(starts):
        until = starts[index + 1] if index + 1 < len(starts) else float("inf")
        first = max((timeline.first_answer(start) for timeline in timelines), default=float("inf"))
        longest = max((timeline.longest_wait(start, until) for timeline in timelines), default=0.0)
        found.append(Recovery(_finite(first - start), _finite(longest)))
    return found


class _Timeline:
    """One partition's requests by the time at which they were sent."""

    def __init__(self, waits: Waits) -> None:
        ordered = sorted(waits)
        self._sent = [sent for sent, _ in ordered]
        self._answered = [answered for _, answered in ordered]
        # From each request on, when the first of them was answered.
        self._first = list(accumulate(reversed(self._answered), min))[::-1]

    def first_answer(self, after: float) -> float:
        """When the first request that was sent at or after an instant was answered."""
        index = bisect_left(self._sent, after)
        return self._first[index] if index < len(self._first) else float("inf")

    def longest_wait(self, after: float, until: float) -> float:
        """The longest wait of the requests that were sent between two instants."""
        span = slice(bisect_left(self._sent, after), bisect_left(self._sent, until))
        return max((answered - sent for sent, answered in zip(self._sent[span], self._answered[span], strict=True)), default=0.0)


def _finite(seconds: float) -> float | None:
    return seconds if seconds != float("inf") else None
