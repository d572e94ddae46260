"""What the benchmark feeds to everybody: the made-up day of ``ops.day``, always the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import msgspec

from ops.day import Day, Event
from rules.instants import MINUTE, SECOND, format_instant
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
    """Reference data, the facts of many numbers, and requests about them; four in ten are approved.

    ``dial_at`` tells for each request when it is to be dialled, where a load goes on for longer than one instant would do for.
    """

    dial_at: Callable[[], int] | None = None

    def __init__(self, seed: int, numbers: int, requests: int, partitions: int, start: int | None = None) -> None:
        """Generate nothing yet: a million numbers take minutes and would not all fit into memory beside two servers.

        Args:
            seed: the same seed gives the same records.
            numbers: people whose facts are on file, two or three facts each.
            requests: how many different requests there are.
            partitions: of the per-number topics.
            start: instant at which the day begins; by default always the same.
        """
        self._day = Day(seed, numbers, start)
        self._count = requests
        self._partitions = partitions
        self.clock_start_s = self._day.start / SECOND

    def __len__(self) -> int:
        return self._count

    def records(self) -> Iterator[Event]:
        """Reference data and facts, made while they are taken; a second time there are no facts."""
        yield from self._day.reference()
        yield from self._day.facts()

    def requests(self, label: str, count: int) -> Iterator[Request]:
        """The first requests under ids of their own, ``LABEL-0`` and so on: a guard answers an id that it knows from memory."""
        for index, value in enumerate(self._requests[:count]):
            request_id, key = f"{label}-{index}", value["number"].encode()
            fields = {"request_id": request_id}
            if self.dial_at is not None:
                fields["dial_at"] = format_instant(self.dial_at())
            encoded = msgspec.json.encode(value | fields)
            yield Request(request_id, key, encoded, partition_of(key, self._partitions))

    def open_loop(self, label: str, count: int) -> Iterator[Request]:
        """As many requests as asked for, from the first on again where there are not that many."""
        for start in range(0, count, len(self)):
            yield from self.requests(f"{label}-{start}", min(len(self), count - start))

    @cached_property
    def _requests(self) -> list[dict[str, Any]]:
        for _ in self._day.facts():  # who is asked about: people of the facts, also where nobody took them
            pass
        probes = self._day.probes(self._day.start + _DIAL_AFTER, self._count)
        return [event.value for event in probes if isinstance(event.value, dict)]


class Small:
    """Records of 200 bytes for a program that only hands them on."""

    def __init__(self, count: int, partitions: int) -> None:
        self._count = count
        self._partitions = partitions

    def __len__(self) -> int:
        return self._count

    def requests(self, label: str, count: int) -> Iterator[Request]:
        """Of everything that a request holds its id alone."""
        for index in range(count):
            request_id = f"{label}-{index}"
            value = msgspec.json.encode({"request_id": request_id, "filler": ""})
            yield Request(request_id, b"", value[:-2] + b"." * (200 - len(value)) + value[-2:], index % self._partitions)
