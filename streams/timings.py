"""How long the barrier, turns, answers, recalls and take-overs take, for whoever asks for the figures of a worker.

Counted in the worker's loop and read from any thread, without a lock: a reader may miss the duration that is being counted.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain

#: Edges in seconds for what takes milliseconds.
PROMPT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LONG_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Timing:
    """Durations of one kind, in buckets.

    Args:
        edges_s: the longest duration of each bucket, in seconds; one more takes in what is longer than the last.
    """

    def __init__(self, edges_s: tuple[float, ...]) -> None:
        self._edges_s = edges_s
        self._counts = [0] * (len(edges_s) + 1)
        self.sum_s = 0.0
        self._most_s = 0.0
        self._told_count, self._told_sum_s = 0, 0.0

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self._counts)

    def took(self, seconds: float, times: int = 1) -> None:
        """Count a duration, so many times; one below zero, which clocks that differ can make, counts as none."""
        # 0.5 to 1.2 us; a histogram of prometheus_client took 1.7 to 3.7 us beside it (2 busy cores, 2026-11-22, Python 3.11).
        seconds = max(seconds, 0.0)
        self._counts[bisect_left(self._edges_s, seconds)] += times
        self.sum_s += seconds * times
        self._most_s = max(self._most_s, seconds)

    def buckets(self) -> list[tuple[float, int]]:
        """The edges in seconds, infinity the last, and how many durations are not longer."""
        return list(zip(chain(self._edges_s, (math.inf,)), accumulate(self._counts), strict=True))

    def lately(self) -> tuple[float, float] | None:
        """Mean and longest duration (seconds) since it was asked last; None if there was none."""
        count, most_s = self.count - self._told_count, self._most_s
        mean_s = (self.sum_s - self._told_sum_s) / count if count else 0.0
        self._told_count, self._told_sum_s, self._most_s = self._told_count + count, self.sum_s, 0.0
        return (mean_s, most_s) if count else None


@dataclass(slots=True)
class Timings:
    """What a worker measures.

    ``barrier`` and ``turn`` begin when a partition's batch is closed; the one ends when its facts are applied, or the turn waits no
    longer and blocks as stale, the other when its decisions are acknowledged. ``answer`` goes from the instant at which the log took
    a request in, by the broker's clock, to its acknowledged decision or rejection; ``recall`` from that of a stop to the acknowledged
    recall. ``take_over`` ends when the partition is ready; ``rebuild`` is one of a partition whose state Redis did not have, or not
    all of it.
    """

    barrier: Timing = field(default_factory=lambda: Timing(PROMPT_S))
    turn: Timing = field(default_factory=lambda: Timing(PROMPT_S))
    answer: Timing = field(default_factory=lambda: Timing(PROMPT_S))
    recall: Timing = field(default_factory=lambda: Timing(PROMPT_S))
    take_over: Timing = field(default_factory=lambda: Timing(_LONG_S))
    rebuild: Timing = field(default_factory=lambda: Timing(_LONG_S))

    def answered(self, logged_ms: Iterable[int]) -> None:
        """Count how long some requests took that are answered now, from the instants (ms) at which the log took them in.

        Those that came in one batch of their producer share theirs, so that few durations are counted for many requests.
        """
        now_ms = time.time() * 1000
        for at_ms, times in Counter(logged_ms).items():
            self.answer.took((now_ms - at_ms) / 1000, times)

    def lately(self) -> Iterator[tuple[str, float]]:
        """Mean and longest wait for the barrier and recall since this was asked last, in seconds, under names for a log line."""
        for name, timing in (("barrier", self.barrier), ("recall", self.recall)):
            told = timing.lately()
            if told is not None:
                yield f"{name}_mean_s", round(told[0], 4)
                yield f"{name}_max_s", round(told[1], 4)
