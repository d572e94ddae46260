"""Decisions over the last hour, in slots of ten seconds: what the dashboard's chart shows."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from ops.statistics import Seen

SLOT_S = 10
SLOTS = 360


class Timeline:
    """Counts of the last hour. Times are monotonic seconds that the caller hands in."""

    def __init__(self, started: float) -> None:
        self._slots: deque[Counter[str]] = deque([Counter()], maxlen=SLOTS)
        self._until = started + SLOT_S

    def add(self, seen: Seen, at: float) -> None:
        """Count one new decision or recall."""
        self._advance(at)
        slot = self._slots[-1]
        if seen.kind == "recall":
            slot["recalls"] += 1
        else:
            slot[seen.decision] += 1
            slot.update(seen.reasons)

    def as_json(self, at: float) -> dict[str, Any]:
        """The slots, oldest first; the last one is running."""
        self._advance(at)
        reasons = sorted({name for slot in self._slots for name in slot} - {"approved", "blocked", "recalls"})
        return {
            "every_s": SLOT_S,
            **{name: [slot[name] for slot in self._slots] for name in ("approved", "blocked", "recalls")},
            "reasons": {code: [slot[code] for slot in self._slots] for code in reasons},
        }

    def _advance(self, at: float) -> None:
        while at >= self._until:
            self._slots.append(Counter())
            self._until += SLOT_S
