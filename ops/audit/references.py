"""Reference entries as they stood at any offset."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, cast

from ops.audit.positions import Positions
from ops.audit.records import LogRecord
from rules.errors import InputError
from rules.events import REFERENCE_MODELS, ReferenceEntry, read_event
from rules.reference import Reference

_Versions = dict[str, tuple[list[int], list[ReferenceEntry | None]]]


class ReferenceLog:
    """Every version of every entry that the log still holds, with its offset."""

    def __init__(self, bounds: Mapping[str, tuple[int, int]]) -> None:
        """Nothing is read yet. ``bounds``: first offset and end of each reference topic (names without prefix)."""
        self.positions = {topic: Positions(*bounds[topic]) for topic in REFERENCE_MODELS}
        self._versions: dict[str, _Versions] = {topic: {} for topic in REFERENCE_MODELS}

    def add(self, topic: str, record: LogRecord) -> None:
        """Take in the next record. One that cannot be read changes nothing: the entry before it stays."""
        self.positions[topic].add(record.offset, record.log_time_ms)
        if record.value is None:
            if record.key is not None:
                self._put(topic, record.key.decode("utf-8", "replace"), record.offset, None)
            return
        try:
            entry, _ = read_event(topic, record.key, record.value)
        except InputError:
            return
        self._put(topic, cast("bytes", record.key).decode(), record.offset, cast("ReferenceEntry", entry))

    def at(self, as_of: Mapping[str, int]) -> Reference:
        """What was on file below the given next offsets; it is looked up, not copied."""
        parties, campaigns, caller_numbers = (
            cast("dict[str, Any]", _AsOf(self._versions[topic], as_of.get(topic, 0)))
            for topic in ("parties", "campaigns", "caller-numbers")
        )
        return Reference(parties, campaigns, caller_numbers)

    def at_time(self, log_time_ms: int) -> Reference:
        """What was on file at a log time."""
        return self.at({topic: positions.needed(log_time_ms + 1) for topic, positions in self.positions.items()})

    def incomplete_at(self, as_of: Mapping[str, int]) -> bool:
        """Whether compaction may have taken out an entry that stood then: something is gone below, and more has come since."""
        return any(
            positions.end > as_of.get(topic, 0) and positions.has_gaps_below(as_of.get(topic, 0))
            for topic, positions in self.positions.items()
        )

    def _put(self, topic: str, key: str, offset: int, entry: ReferenceEntry | None) -> None:
        offsets, entries = self._versions[topic].setdefault(key, ([], []))
        offsets.append(offset)
        entries.append(entry)


class _AsOf(Mapping[str, Any]):
    """The entries of one topic below an offset."""

    def __init__(self, versions: _Versions, limit: int) -> None:
        self._versions = versions
        self._limit = limit

    def __getitem__(self, key: str) -> Any:
        offsets, entries = self._versions[key]
        position = bisect_left(offsets, self._limit)
        entry = entries[position - 1] if position else None
        if entry is None:
            raise KeyError(key)
        return entry

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._versions if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
