"""What every agent works with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from config.clock import Clock
from config.settings import Settings
from rules.events import FACT_MODELS, REFERENCE_MODELS
from rules.reference import Reference
from rules.rulebook import Rulebook
from streams.barrier import Barrier
from streams.clocks import Clocks
from streams.kept import Journalled, Meta
from streams.outputs import OUTPUTS, OutputLog
from streams.ownership import Ownership
from streams.publisher import Acknowledged, Headers, Publisher
from streams.reference_feed import ReferenceFeed
from streams.state import Store
from streams.timings import Timings


class Answered(NamedTuple):
    """A request that carries a trace context and whose decision the broker has acknowledged.

    ``item`` is the decision, of ``partition``; ``took_s`` the time from the close of its batch until then.
    """

    context: Headers
    partition: int
    item: Journalled
    took_s: float


@dataclass(slots=True)
class Guard:
    """A running guard: its settings, its connections, and what it holds in memory.

    ``clocks`` are those of the servers. ``blocked_with`` is the code that every request is blocked with while something is wrong that
    no single request shows (``ops.readiness`` finds it); None in good times. ``counts`` counts what the wire contract wants counted
    (rejected, misplaced, unknown fields) and what operators ask for; ``timings`` says how long it all took; ``on_answered`` is told of
    requests that carry a trace context, if somebody follows traces.
    """

    settings: Settings
    clock: Clock
    book: Rulebook
    store: Store
    publisher: Publisher
    barrier: Barrier
    feed: ReferenceFeed
    ownership: Ownership
    outputs: OutputLog
    reference: Reference
    clocks: Clocks
    timings: Timings
    blocked_with: str | None = None
    on_answered: Callable[[Answered], None] | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def as_of(self, meta: Meta) -> dict[str, int]:
        """Next offset of every topic whose effect is known with a meta: what a decision says it was taken with."""
        fact_offsets = {topic: meta.applied.get(topic, 0) for topic in FACT_MODELS}
        return fact_offsets | {topic: self.feed.applied(topic) for topic in REFERENCE_MODELS}

    def note_published(self, where: Acknowledged) -> None:
        """Tell a partition where its decisions and recalls lie, so that what others wrote there is noticed."""
        partition = self.ownership.get(where.partition)
        topic = where.topic.removeprefix(self.settings.topic_prefix)
        if partition is not None and topic in OUTPUTS:
            partition.published(topic, where.begin, where.end)

    @property
    def refusal(self) -> str | None:
        """The code that every request is blocked with now; a clock that went wrong counts from the very next decision."""
        return "S_STATE_UNAVAILABLE" if self.clocks.differing() else self.blocked_with
