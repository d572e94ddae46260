"""Keeps aiokafka's log off a screen, and what it last said at hand for who is told that a broker does not answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from config.settings import Settings
from rules.errors import CannotStart


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


@contextmanager
def connecting(settings: Settings) -> Iterator[None]:
    """Around what connects a client of the broker.

    Raises:
        CannotStart: it does not answer, or lacks the guard's topics; with aiokafka's own word on why, if it had one.
    """
    with client_silenced() as heard:
        try:
            yield
        except UnknownTopicOrPartitionError:
            lacking = f"Kafka at {settings.kafka} lacks topics {settings.topic('*')}"
            raise CannotStart(f"{lacking}; create them with: ringfence topics --create") from None
        except (KafkaError, OSError, ValueError) as error:
            why = heard.text or (str(error).splitlines() or [type(error).__name__])[0]
            raise CannotStart(f"no Kafka answers at {settings.kafka} (RINGFENCE_KAFKA): {why}") from None
