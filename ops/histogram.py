"""Durations counted in buckets, so that hours of them take no more memory than minutes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Latency:
    """p50 and p99 in seconds of ``count`` decisions."""

    p50: float
    p99: float
    count: int


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

    def latency(self) -> Latency | None:
        """What a view shows; None without any count."""
        return Latency(self.quantile(0.5), self.quantile(0.99), self.count) if self.count else None
