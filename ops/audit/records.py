"""The records of a log as the auditor handles them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from rules.decision import Decision
from rules.events import NumberEvent
from rules.requests import CallRequest

APPROVED, BLOCKED, REJECTED = "approved-calls", "blocked-calls", "rejected-events"


class LogRecord(NamedTuple):
    """One record of one partition of a topic. ``log_time_ms`` is the broker's (LogAppendTime)."""

    offset: int
    log_time_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()

    @property
    def input_offset(self) -> int:
        """Offset of the request that an output answers; -1 where the header is missing or is no number."""
        raw = dict(self.headers).get("input-offset") or b""
        return int(raw) if raw.isdigit() else -1


class Asked(msgspec.Struct, frozen=True, eq=False):
    """A call request that can be read, in its number's partition."""

    offset: int
    log_time_ms: int
    request: CallRequest
    judged: bool

    def same_content(self, other: Asked) -> bool:
        """Whether two requests ask the same; instants compare as instants, not as text."""
        return self.request.content() == other.request.content()


class Published(msgspec.Struct, frozen=True, eq=False):
    """A decision or recall as it stands in an output topic."""

    topic: str
    offset: int
    log_time_ms: int
    raw: bytes
    input_offset: int
    decision: Decision
    judged: bool


class Fact(msgspec.Struct, frozen=True, eq=False):
    """A fact about a number, in its partition. ``event`` is None for a record that cannot be read and suspends the number."""

    topic: str
    offset: int
    log_time_ms: int
    event: NumberEvent | None
