"""One owned partition, as its worker sees it: epoch, applied offsets, the journal left by a former turn, and who waits for what."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field

from streams.state import Journalled, Meta
from streams.transport import Fetched


@dataclass(slots=True, eq=False)
class Partition:
    """What the owner knows of partition ``number`` between two rebalances.

    ``meta`` is what Redis said last; None until the partition is taken over, or while it is being rebuilt, and then nothing is decided
    and fact batches are dropped, because they are read again from the applied offsets. ``journal`` holds decisions that a former turn
    stored and may not have published or committed, by input offset.
    """

    number: int
    meta: Meta | None = None
    journal: dict[int, Journalled] = field(default_factory=dict)
    next_request: int | None = None
    revoked: bool = False
    #: One writer at a time within this worker; between workers the epoch in the meta decides.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
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
