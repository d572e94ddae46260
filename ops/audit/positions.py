"""Where the records of one log stand and when they came: all that is kept of most of them."""

from __future__ import annotations

from array import array
from bisect import bisect_left


class Positions:
    """Offsets and log times of one partition of a topic, read in order.

    ``begin`` is the first offset that the broker still has; ``end`` the next offset when the audit began.
    """

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        self.end = end
        self._offsets = array("q")
        self._times_ms = array("q")
        self._earliest_later: array[int] | None = None

    def add(self, offset: int, log_time_ms: int) -> None:
        """Take in the next record."""
        self._offsets.append(offset)
        self._times_ms.append(log_time_ms)
        self._earliest_later = None

    def needed(self, before_ms: int) -> int:
        """The least next offset that covers every record with a log time before an instant (milliseconds); 0 if there is none."""
        if self._earliest_later is None:
            self._earliest_later = self._suffix_minima()
        position = bisect_left(self._earliest_later, before_ms)
        return self._offsets[position - 1] + 1 if position else 0

    def between(self, first: int, next_offset: int) -> array[int]:
        """The offsets from one up to another (exclusive) at which there are records."""
        return self._offsets[bisect_left(self._offsets, first) : bisect_left(self._offsets, next_offset)]

    def has_gaps_below(self, offset: int) -> bool:
        """Whether some offset below is not there: compacted, truncated, aborted, or the marker of a transaction."""
        return bisect_left(self._offsets, offset) < offset

    def _suffix_minima(self) -> array[int]:
        # Log times may go back when a partition gets another leader: a record counts as early if it or any later one is.
        minima = array("q", self._times_ms)
        for position in range(len(minima) - 2, -1, -1):
            minima[position] = min(minima[position], minima[position + 1])
        return minima
