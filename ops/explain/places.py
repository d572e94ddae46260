"""Where a decision stands in the outputs, as people and event streams name it: ``blocked-3@1234``."""

from __future__ import annotations

import re
from typing import NamedTuple

from streams.topics import APPROVED, BLOCKED

_SHORT = {"approved": APPROVED, "blocked": BLOCKED}
_FORM = re.compile(r"(approved|blocked)-([0-9]{1,9})@([0-9]{1,18})")


class Place(NamedTuple):
    """A record of ``approved-calls`` or ``blocked-calls``; ``topic`` is the name without prefix."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic.removesuffix('-calls')}-{self.partition}@{self.offset}"


def parse_place(text: str) -> Place:
    """Read a place as ``str(Place)`` writes it.

    Raises:
        ValueError: it is none.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("want approved-PARTITION@OFFSET or blocked-PARTITION@OFFSET, like blocked-3@1234")
    return Place(_SHORT[found[1]], int(found[2]), int(found[3]))
