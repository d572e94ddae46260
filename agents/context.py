"""What every agent works with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from config.clock import Clock
from config.settings import Settings
from rules.reference import Reference
from rules.rulebook import Rulebook
from streams.barrier import Barrier
from streams.ownership import Ownership
from streams.publisher import Publisher
from streams.reference_feed import ReferenceFeed
from streams.state import Store


@dataclass(slots=True)
class Guard:
    """A running guard: its settings, its connections, and what it holds in memory.

    ``counts`` counts what the wire contract wants counted (rejected, misplaced, unknown fields) and what operators ask for.
    """

    settings: Settings
    clock: Clock
    book: Rulebook
    store: Store
    publisher: Publisher
    barrier: Barrier
    feed: ReferenceFeed
    ownership: Ownership
    reference: Reference
    counts: Counter[str] = field(default_factory=Counter)
