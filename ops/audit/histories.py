"""What load clients wrote down: when a record was sent, and when the broker had acknowledged it, by one clock."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rules.errors import CannotStart


class _Line(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int
    sent_at: float | None = None
    acked_at: float | None = None


class Histories:
    """Sending and acknowledgement of records, by topic (name without prefix) and offset of one partition."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float | None, float | None]] = {}

    @classmethod
    def read(cls, path: Path, partition: int) -> Histories:
        """Read the lines of one partition from a file of JSON lines.

        Raises:
            CannotStart: the file cannot be read, or a line is none of ours.
        """
        histories, decode = cls(), msgspec.json.Decoder(_Line).decode
        try:
            with path.open("rb") as lines:
                for position, raw in enumerate(lines, 1):
                    if not raw.strip():
                        continue
                    try:
                        line = decode(raw)
                    except msgspec.DecodeError as error:
                        raise CannotStart(f"--histories: line {position}: {error}") from None
                    if line.partition == partition:
                        histories.note(line.topic, line.offset, sent_at=line.sent_at, acked_at=line.acked_at)
        except OSError as error:
            raise CannotStart(f"--histories: {error.strerror}") from None
        return histories

    def note(self, topic: str, offset: int, *, sent_at: float | None = None, acked_at: float | None = None) -> None:
        """Take in what is known of one record (unix seconds)."""
        self._known[topic, offset] = sent_at, acked_at

    def sent_at(self, topic: str, offset: int) -> float | None:
        """When a record was sent; None if nobody wrote it down."""
        return self._known.get((topic, offset), (None, None))[0]

    def acked_at(self, topic: str, offset: int) -> float | None:
        """When a record was acknowledged; None if nobody wrote it down."""
        return self._known.get((topic, offset), (None, None))[1]
