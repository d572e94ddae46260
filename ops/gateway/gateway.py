"""What the parts of one gateway share."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import redis.asyncio as redis

from config.clock import Clock
from config.settings import Settings
from ops.gateway.asking import Asking
from ops.gateway.feed import Feed
from ops.gateway.keys import KeyRing
from ops.gateway.limits import Rate
from ops.gateway.publishing import Publishing
from ops.tracing import Tracing
from rules.rulebook import Rulebook
from streams.log_reader import LogReader
from streams.state import Store


@dataclass
class Gateway:
    """One gateway's connections, keys and counts.

    ``responses`` counts answers by route and status, ``refused`` by the reason why nothing was done.
    """

    settings: Settings
    keys: KeyRing
    clock: Clock
    book: Rulebook
    publishing: Publishing
    asking: Asking
    feed: Feed
    store: Store
    redis: redis.Redis
    log: LogReader
    tracing: Tracing = field(default_factory=lambda: Tracing(None))
    responses: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    rates: defaultdict[str, Rate] = field(init=False)

    def __post_init__(self) -> None:
        """A rate for each key, made when it first asks."""
        self.rates = defaultdict(lambda: Rate(self.settings.gateway_rate))
