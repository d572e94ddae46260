"""One owned partition, as its worker sees it: epoch, applied offsets, what was published, and who waits for what."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from streams.kept import Journalled, Meta
from streams.transport import Fetched


@dataclass(slots=True, eq=False)
class Partition:
    """What the owner knows of partition ``number`` between two rebalances.

    ``meta`` is what Redis said last; None until the partition is taken over, or while it is being rebuilt, and then nothing is decided
    and fact batches are dropped, because they are read again from the applied offsets. ``journal`` holds decisions that a former turn
    stored and may not have published or committed, by input offset. ``turns`` is how many turns Redis has admitted, at least.
    ``next_request`` is the offset that the next turn must begin with or before; None until the partition is taken over.

    ``outputs`` is the next offset of each output topic (name without prefix) up to which we know what was published; ``unexplained``
    are ranges (topic, begin, end) below it that somebody else wrote. ``replaying_until`` is, per fact topic, up to where facts may have
    been applied before, by us or a former owner. ``doing`` says what a take-over is at, for whoever asks why it is not ready,
    and ``rebuilding`` that Redis lacks its state, or some of it; ``unread`` counts the records of number-states that are still to be
    read to fill it.
    """

    number: int
    meta: Meta | None = None
    journal: dict[int, Journalled] = field(default_factory=dict)
    turns: int = 0
    next_request: int | None = None
    outputs: dict[str, int] = field(default_factory=dict)
    unexplained: list[tuple[str, int, int]] = field(default_factory=list)
    replaying_until: dict[str, int] = field(default_factory=dict)
    doing: str = "waits to be taken over"
    rebuilding: bool = False
    unread: int = 0
    revoked: bool = False
    #: One writer of facts at a time within this worker; between workers the epoch in the meta decides.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _publishing: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        """Whether the state may be used."""
        return self.meta is not None and not self.revoked

    def applied(self, topic: str) -> int:
        """Next offset of a fact topic (name without prefix) whose effect is in the state; -1 while that is unknown."""
        return self.meta.applied.get(topic, 0) if self.meta is not None else -1

    def set_meta(self, meta: Meta | None) -> None:
        """Take over what Redis says now and wake whoever waits for it."""
        self.meta = meta
        self.wake()

    def wake(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> Coroutine[None, None, object]:
        """Wait for the next change. The wait begins with this call, not when it is awaited, so that nothing in between is missed."""
        return self._changed.wait()

    def has_gap(self, topic: str, fetched: Fetched) -> bool:
        """Whether records are missing between what is applied and a fetched batch."""
        return fetched.first_offset > self.applied(topic)

    @property
    def is_publishing(self) -> bool:
        """Whether something that Redis has taken is not acknowledged by the broker yet."""
        return self._publishing > 0

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Between a write to Redis and the acknowledgement of what it says was published.

        Who rebuilds the partition from the output topics waits for the end, for what is under way cannot be read there yet.
        """
        self._publishing += 1
        try:
            yield
        finally:
            self._publishing -= 1
            self.wake()

    async def quiet(self) -> None:
        """Wait until nothing is being published."""
        while self._publishing:
            await self.changed()

    def published(self, topic: str, begin: int, end: int) -> None:
        """The broker has acknowledged records of ours; offsets that were left out before them are somebody else's."""
        known = self.outputs.get(topic)
        if known is None:
            return
        if begin > known:
            self.unexplained.append((topic, known, begin))
        self.outputs[topic] = max(known, end)
