"""Whether a reader is current: up to which moment it has read everything that was there.

A look asks the broker where the partitions end, and remembers *when it asked*. Once the reader has taken in everything up to those
ends, it knows all that the broker had acknowledged before that moment, however long answer and reading took. An answer to a dialler
may rest on such a moment for a bounded time only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """A question to the broker: when it was asked (monotonic seconds), and what had been read by then (next offsets)."""

    asked_s: float
    read: Mapping[Hashable, int]


class Currency:
    """What was read of some partitions, and as of when that is everything."""

    def __init__(self, bound_s: float) -> None:
        """Nothing is read yet.

        Args:
            bound_s: for how long an answer may rest on the last moment at which everything was known.

        Raises:
            ValueError: it is not above zero.
        """
        if not bound_s > 0:
            raise ValueError("want a bound of more than 0 s")
        self.bound_s = bound_s
        self._read: dict[Hashable, int] = {}
        self._goal: tuple[Look, Mapping[Hashable, int]] | None = None
        self.as_of_s: float | None = None

    def begin(self, offsets: Mapping[Hashable, int]) -> None:
        """The partitions are known, and where reading them begins."""
        self._read = dict(offsets)

    @property
    def partitions(self) -> Iterable[Hashable]:
        """Those that are read."""
        return self._read.keys()

    def look(self, now_s: float) -> Look:
        """The broker is about to be asked for the ends."""
        return Look(now_s, dict(self._read))

    def found(self, look: Look, ends: Mapping[Hashable, int]) -> None:
        """The broker has answered with the next offset of each partition.

        An end below what had been read when it was asked is none: a new leader that does not know better yet, or another log.
        """
        sound = bool(look.read) and all(tp in ends and ends[tp] >= offset for tp, offset in look.read.items())
        self._goal = (look, ends) if sound else None
        self._reach()

    def read_up_to(self, tp: Hashable, offset: int) -> None:
        """A partition has been taken in up to an offset (exclusive)."""
        if tp in self._read:
            self._read[tp] = offset
            self._reach()

    @property
    def waits(self) -> bool:
        """Whether there is an end that has not been reached."""
        return self._goal is not None

    def is_current(self, now_s: float) -> bool:
        """Whether everything is known that was there ``bound_s`` ago."""
        return self.as_of_s is not None and now_s - self.as_of_s <= self.bound_s

    def _reach(self) -> None:
        if self._goal is None:
            return
        look, ends = self._goal
        if all(self._read[tp] >= ends[tp] for tp in self._read):
            self.as_of_s, self._goal = look.asked_s, None
