"""What the benchmark feeds to everybody: the made-up day of ``ops.day``, always the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import msgspec

from ops.day import Day
from rules.instants import MINUTE, SECOND
from streams.partitioner import partition_of

#: Requests are dialled this long after the clocks start, so that every contender judges the same instant however long it takes.
_DIAL_AFTER = 10 * MINUTE


class Request(NamedTuple):
    """An encoded call request and the partition that its number belongs to."""

    request_id: str
    key: bytes
    value: bytes
    partition: int


class Asking(Protocol):
    """Whatever gives requests: as many as it is long, or as asked for, under ids of their own."""

    def __len__(self) -> int: ...

    def requests(self, label: str, count: int) -> Iterator[Request]:
        """So many requests under ids ``LABEL-0`` and so on."""
        ...


class Workload:
    """Reference data, the facts of many numbers, and requests about them; four in ten are approved."""

    def __init__(self, seed: int, numbers: int, requests: int, partitions: int) -> None:
        """Generate everything.

        Args:
            seed: the same seed gives the same records.
            numbers: people whose facts are on file, two or three facts each.
            requests: how many different requests there are.
            partitions: of the per-number topics.
        """
        day = Day(seed, numbers)
        self.clock_start_s = day.start / SECOND
        self.reference = list(day.reference())
        self.facts = [(event.topic, event.key.encode(), event.encoded()) for event in day.facts()]
        self._partitions = partitions
        self._requests = [event.value for event in day.probes(day.start + _DIAL_AFTER, requests) if isinstance(event.value, dict)]

    def __len__(self) -> int:
        return len(self._requests)

    def requests(self, label: str, count: int) -> Iterator[Request]:
        """The first requests under ids of their own, ``LABEL-0`` and so on: a guard answers an id that it knows from memory."""
        for index, value in enumerate(self._requests[:count]):
            request_id, key = f"{label}-{index}", value["number"].encode()
            encoded = msgspec.json.encode(value | {"request_id": request_id})
            yield Request(request_id, key, encoded, partition_of(key, self._partitions))

    def open_loop(self, label: str, count: int) -> Iterator[Request]:
        """As many requests as asked for, from the first on again where there are not that many."""
        for start in range(0, count, len(self)):
            yield from self.requests(f"{label}-{start}", min(len(self), count - start))
