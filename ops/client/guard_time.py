"""What the guard's clock may show now, seen from a machine whose own clock must not be trusted blindly.

Two things bound it. This machine's clock, taken to be wrong by no more than a tolerance to either side. And the decisions themselves:
when one has been read, the guard's clock had reached its ``decided_at``, and it has run on since.
"""

from __future__ import annotations

from typing import NamedTuple

from ops.client.joined import Between
from rules.instants import SECOND

#: A decision further ahead than all later ones is believed for so long; its worker's clock may have been put right since.
_BELIEVED_S = 60.0


class Now(NamedTuple):
    """This machine's clock (microseconds since 1970) and its monotonic clock (seconds)."""

    instant: int
    monotonic_s: float


class GuardTime:
    """Bounds of the guard's time."""

    def __init__(self, tolerance: int) -> None:
        """No decision has been read.

        Args:
            tolerance: by how much this machine's clock may be wrong, in microseconds.

        Raises:
            ValueError: it is negative.
        """
        if tolerance < 0:
            raise ValueError("the tolerance between the clocks cannot be negative")
        self._tolerance = tolerance
        self._lead: int | None = None
        self._lead_read_s = 0.0

    def heard(self, decided_at: int, now: Now) -> None:
        """A decision was read."""
        lead = decided_at - _microseconds(now.monotonic_s)
        if self._lead is None or lead > self._lead or now.monotonic_s - self._lead_read_s > _BELIEVED_S:
            self._lead, self._lead_read_s = lead, now.monotonic_s

    def between(self, now: Now) -> Between:
        """The bounds."""
        reached = self._reached(now)
        return Between(max(now.instant - self._tolerance, reached), max(now.instant + self._tolerance, reached))

    def past(self, now: Now) -> int:
        """An instant that the guard's clock has passed even if one of the two, this machine's clock and a decision, is far ahead."""
        return min(now.instant - self._tolerance, self._reached(now))

    def is_ahead(self, now: Now) -> bool:
        """Whether the guard's clock is ahead of this machine's by more than the tolerance: one of the two is wrong."""
        return self._reached(now) > now.instant + self._tolerance

    def _reached(self, now: Now) -> int:
        return 0 if self._lead is None else self._lead + _microseconds(now.monotonic_s)


def _microseconds(seconds: float) -> int:
    return int(seconds * SECOND)
