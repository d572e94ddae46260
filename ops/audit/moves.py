"""Records in a partition that is not their number's: each has to stand in its own partition, too, where alone it counts (G7).

So has a null for each number of another partition that a broken record suspends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from ops.audit.findings import UNMOVED, Finding, Tally
from ops.audit.records import LogRecord
from ops.audit.terms import Terms
from rules.e164 import masked


class Moved(msgspec.Struct, frozen=True):
    """A misplaced record: where it stands, where it belongs, and what tells a copy of it."""

    topic: str
    partition: int
    offset: int
    log_time_ms: int
    home: int
    key: bytes
    digest: bytes


class Homes:
    """What stands in the partitions where misplaced records belong; only of the numbers in question."""

    def __init__(self, moved: Iterable[Moved]) -> None:
        """Nothing is read yet."""
        self._moved = list(moved)
        self._keys = {(one.topic, one.key) for one in self._moved}
        self._there: set[tuple[str, bytes]] = set()

    @property
    def places(self) -> set[tuple[str, int]]:
        """The topics and partitions to be read."""
        return {(one.topic, one.home) for one in self._moved}

    def add(self, topic: str, record: LogRecord) -> None:
        """Take in a record of one of the places."""
        if record.key is not None and (topic, record.key) in self._keys:
            self._there.add((topic, digest(record)))

    def check(self, terms: Terms, tally: Tally) -> None:
        """Find what was not moved."""
        for one in self._moved:
            if (one.topic, one.digest) in self._there:
                continue
            if terms.young(one.log_time_ms):
                tally.pending(one.topic, one.partition, one.offset)
                continue
            detail = f"its own partition is {one.home}, where it does not stand"
            number = masked(one.key.decode())
            tally.found(Finding(UNMOVED, one.topic, one.partition, one.offset, None, number, detail))


def digest(record: LogRecord) -> bytes:
    """What a record and its copy in another partition have in common: key and value."""
    key, value = record.key or b"", record.value
    return hashlib.blake2b(b"%d %d " % (len(key), value is None) + key + (value or b""), digest_size=16).digest()
