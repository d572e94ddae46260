"""One record of the made-up day before it is encoded."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Event(NamedTuple):
    """One record before it is encoded.

    ``topic`` has no prefix; ``value`` is the record as a JSON object, or bytes where even that is broken; ``sound`` is False
    for a record that is broken on purpose, ``again`` True for one that has been sent before.
    """

    topic: str
    key: str
    value: dict[str, Any] | bytes
    sound: bool = True
    again: bool = False

    def encoded(self) -> bytes:
        """The record's value as it goes on the wire."""
        return self.value if isinstance(self.value, bytes) else msgspec.json.encode(self.value)

    @property
    def request_id(self) -> str | None:
        """Id of a sound call request that is sent for the first time; None for everything else."""
        if self.topic == "call-requests" and self.sound and not self.again and isinstance(self.value, dict):
            return str(self.value["request_id"])
        return None
