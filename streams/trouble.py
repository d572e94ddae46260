"""What a server last failed us with, kept so that waiting for a server is told from being stuck."""

from __future__ import annotations

import math
from time import monotonic


class Trouble:
    """The last failure of a server that was asked."""

    def __init__(self) -> None:
        self._at = -math.inf

    def met(self) -> None:
        """The server has just failed us."""
        self._at = monotonic()

    def within(self, seconds: float) -> bool:
        """Whether it did so in the last ``seconds``."""
        return monotonic() - self._at <= seconds
