"""Keeps aiokafka's log off a screen, and what it last said at hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _LastWord(logging.Handler):
    """Keeps the last message, and passes none on."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.text = record.getMessage()


@contextmanager
def client_silenced() -> Iterator[_LastWord]:
    """Keep aiokafka's log lines off the screen: a broker that is away logs several a second, in the middle of a view.

    Yields: what holds its last message, the only place where aiokafka says why a connection failed.
    """
    client = logging.getLogger("aiokafka")
    heard, propagated = _LastWord(), client.propagate
    client.addHandler(heard)
    client.propagate = False
    try:
        yield heard
    finally:
        client.removeHandler(heard)
        client.propagate = propagated
