"""Hands decisions as they come to everybody who watches the gateway's event stream.

A reader that is slow, or has vanished, costs the others nothing: what waits for it is bounded, and when that is full its stream ends.
It comes back with ``Last-Event-ID`` and reads the rest from Kafka (replay.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from ops.explain.places import Place
from ops.gateway.problems import Problem
from ops.statistics import Seen
from rules.e164 import without

STREAMS_MAX = 100
RECENT_MAX = 2000
_WAITING_MAX = 10_000
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which decisions are meant; an empty set means any. ``reasons``: one of them is enough."""

    decisions: frozenset[str] = _NOBODY
    kinds: frozenset[str] = _NOBODY
    reasons: frozenset[str] = _NOBODY
    advertisers: frozenset[str] = _NOBODY
    intermediaries: frozenset[str] = _NOBODY
    call_centres: frozenset[str] = _NOBODY
    campaigns: frozenset[str] = _NOBODY

    def match(self, seen: Seen) -> bool:
        """Whether a decision is meant."""
        return (
            (not self.decisions or seen.decision in self.decisions)
            and (not self.kinds or seen.kind in self.kinds)
            and (not self.reasons or not self.reasons.isdisjoint(seen.reasons))
            and (not self.advertisers or seen.advertiser_id in self.advertisers)
            and (not self.intermediaries or seen.intermediary_id in self.intermediaries)
            and (not self.call_centres or seen.call_centre_id in self.call_centres)
            and (not self.campaigns or seen.campaign_id in self.campaigns)
        )


class Event:
    """A decision or recall on its way to readers.

    ``place`` is where it stands (``blocked-3@1234``); ``resume_ms`` a log time from which on Kafka has all that comes after it.
    """

    __slots__ = ("_masked", "place", "raw", "resume_ms", "seen")

    def __init__(self, place: Place, resume_ms: int, seen: Seen, raw: bytes) -> None:
        self.place, self.resume_ms, self.seen, self.raw = place, resume_ms, seen, raw
        self._masked: bytes | None = None

    def message(self, *, unmasked: bool) -> bytes:
        """As a server-sent event; without its number unless ``unmasked``. The masked form is made once for all readers."""
        if unmasked:
            return self._message(self.raw)
        if self._masked is None:
            self._masked = self._message(without(self.seen.number, self.raw.decode()).encode())
        return self._masked

    def _message(self, data: bytes) -> bytes:
        return b"event: %s\nid: %s~%d\ndata: %s\n\n" % (self.seen.kind.encode(), str(self.place).encode(), self.resume_ms, data)


class Subscription:
    """What waits for one reader. ``ended``: it gets no more; ``overflowed``: because it was too slow."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._waiting: deque[Event] = deque()
        self._some = asyncio.Event()
        self.ended = self.overflowed = False

    def offer(self, event: Event) -> None:
        """Take in an event if it is wanted and there is room."""
        if self.ended or not self._wanted.match(event.seen):
            return
        if len(self._waiting) >= _WAITING_MAX:
            self._waiting.clear()
            self.overflowed = True
            self.end()
        else:
            self._waiting.append(event)
            self._some.set()

    def end(self) -> None:
        """Give no more."""
        self.ended = True
        self._some.set()

    async def take(self, within_s: float) -> list[Event]:
        """What has come; waits for something up to a time, and then gives nothing."""
        try:
            async with asyncio.timeout(within_s):
                await self._some.wait()
        except TimeoutError:
            return []
        taken = list(self._waiting)
        self._waiting.clear()
        if not self.ended:
            self._some.clear()
        return taken


class Hub:
    """The readers of one gateway, and the last events for those who come new. ``dropped`` counts readers that were too slow."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._recent: deque[Event] = deque(maxlen=RECENT_MAX)
        self.dropped = 0

    @property
    def streams(self) -> int:
        """How many readers there are now."""
        return len(self._subscriptions)

    def publish(self, event: Event) -> None:
        """Hand an event to whoever wants it; waits for nobody."""
        self._recent.append(event)
        for subscription in self._subscriptions:
            subscription.offer(event)

    def recent(self, wanted: Filter, most: int) -> list[Event]:
        """The last events that are wanted, oldest first."""
        found: deque[Event] = deque(maxlen=most)
        found.extend(event for event in self._recent if wanted.match(event.seen))
        return list(found)

    def close(self) -> None:
        """End every stream: the gateway stops, and would wait for them."""
        for subscription in self._subscriptions:
            subscription.end()

    @contextmanager
    def subscribe(self, wanted: Filter) -> Iterator[Subscription]:
        """A reader, while the block runs.

        Raises:
            Problem: 503, there are too many.
        """
        if len(self._subscriptions) >= STREAMS_MAX:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{STREAMS_MAX} streams are open already", reason="busy", retry_after_s=10)
        subscription = Subscription(wanted)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self.dropped += subscription.overflowed
