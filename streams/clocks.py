"""Comparison of this machine's system clock with those of the servers (protocol of a partition: what stays outside).

Two bounds on a server's clock are kept, not one guess: a stamp that it made between our question and its answer is no earlier than the
question and no later than the answer. Only a difference that no delay can explain counts. The bounds are kept against a steady clock,
so a step of our own system clock shows at once, without asking again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass


def system() -> float:
    """The system's clock (seconds since 1970); the offset of a rehearsal (``config.clock``) is not in it."""
    return time.time()


def steady() -> float:
    """Seconds that no correction of the clock moves; they go on while the machine sleeps, where the system can tell."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boot_time) if boot_time is not None else time.monotonic()


class Comparison:
    """What is known of one server's clock."""

    def __init__(self) -> None:
        # Server's time minus steady time lies between these two.
        self._low, self._high = -math.inf, math.inf

    def answered(self, earliest: float, latest: float, asked: float) -> None:
        """Take in stamps that the server made since ``asked`` (steady time) and up to now.

        Args:
            earliest: the first of them, seconds since 1970.
            latest: the last of them; several brokers may stamp one publish, and each counts.
            asked: when the question was put.
        """
        self._low, self._high = latest - steady(), earliest - asked

    def seen(self, stamp: float) -> None:
        """Take in a stamp (seconds since 1970) that the server made at some time before now, as on a record that was read."""
        self._low = max(self._low, stamp - steady())

    def ahead(self) -> float:
        """Seconds by which the server's clock is proven to be ahead of ours; negative if it is behind, 0 if nothing is proven."""
        ours = system() - steady()
        if self._low > ours:
            return self._low - ours
        return min(0.0, self._high - ours)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The servers' clocks by whose they are, and the difference in seconds that is borne."""

    tolerance_s: float
    servers: Mapping[str, Comparison]

    def differing(self) -> dict[str, float]:
        """Whose clock is proven to differ by more than is borne, and by how many seconds it is ahead of ours."""
        differences = {whose: clock.ahead() for whose, clock in self.servers.items()}
        return {whose: ahead for whose, ahead in differences.items() if abs(ahead) > self.tolerance_s}
