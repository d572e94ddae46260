"""The servers that a benchmark starts for itself and leaves nothing of."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import SecretStr

from config.settings import Settings
from ops.client_log import client_silenced
from rules.errors import CannotStart
from streams.embedded import EmbeddedServers

_T = TypeVar("_T")

#: Of every per-number topic.
PARTITIONS = 8


class Place(NamedTuple):
    """Where a measurement happens: a Kafka, a Redis, a prefix for everything on them, and a folder for logs and files."""

    kafka: str
    redis: str
    prefix: str
    folder: Path

    def settings(self, name: str, state: str | None = None) -> Settings:
        """Settings of a program with topics, group and state of its own; ``state`` names another one whose state it reads."""
        return Settings(
            kafka=self.kafka,
            redis=SecretStr(self.redis),
            topic_prefix=f"{self.prefix}{name}.",
            group=f"{self.prefix}{name}",
            redis_prefix=f"{self.prefix}{state or name}",
            partitions=PARTITIONS,
            embedded=True,
        )


def on_own_servers(measure: Callable[[Place], Coroutine[Any, Any, _T]]) -> _T:
    """Run a measurement on a Kafka and a Redis of its own, with a folder for logs; all are gone when this returns or raises.

    Raises:
        SystemExit: 3 where they cannot start, 130 after Ctrl-C.
    """
    servers = EmbeddedServers(heap="1g")
    try:
        try:
            servers.start(say)
        except CannotStart as error:
            say(f"cannot start: {error}")
            raise SystemExit(3) from None
        # It logs every retry, and of a topic that has just been made there are some.
        with client_silenced(), tempfile.TemporaryDirectory(prefix="ringfence-bench-", ignore_cleanup_errors=True) as folder:
            return asyncio.run(measure(Place(servers.kafka.address, servers.redis.url, "bench-", Path(folder))))
    except KeyboardInterrupt:
        say("interrupted; everything is stopped")
        raise SystemExit(130) from None
    finally:
        servers.stop(0)


def say(text: str) -> None:
    """Tell how far it is, beside the figures."""
    print(text, file=sys.stderr, flush=True)
