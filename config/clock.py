"""The guard's clock: the system's, or one that was set to another instant and runs on (demo, tests, rehearsals)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from config.settings import Settings
from rules.instants import SECOND


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that is ``offset`` microseconds ahead of the system's."""

    offset: int = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> Clock:
        """The clock that the settings ask for. ``clock_offset_s`` prevails, because ``up`` gives one to all its workers."""
        if settings.clock_offset_s is not None:
            return cls(round(settings.clock_offset_s * SECOND))
        if settings.clock_start is not None:
            return cls(round(settings.clock_start.timestamp() * SECOND) - _system())
        return cls()

    def now(self) -> int:
        """This instant (microseconds since 1970)."""
        return _system() + self.offset


def _system() -> int:
    return time.time_ns() // 1000
