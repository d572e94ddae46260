"""The servers that a benchmark starts for itself and leaves nothing of."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from rules.errors import CannotStart
from streams.embedded import EmbeddedServers

_T = TypeVar("_T")


def on_own_servers(measure: Callable[[EmbeddedServers, Path], Coroutine[Any, Any, _T]]) -> _T:
    """Run a measurement on a Kafka and a Redis of its own, with a folder for logs; all are gone when this returns or raises.

    Raises:
        SystemExit: 3 where they cannot start, 130 after Ctrl-C.
    """
    servers = EmbeddedServers(heap="1g")
    try:
        servers.start(say)
        with tempfile.TemporaryDirectory(prefix="ringfence-bench-", ignore_cleanup_errors=True) as folder:
            return asyncio.run(measure(servers, Path(folder)))
    except CannotStart as error:
        say(f"cannot start: {error}")
        raise SystemExit(3) from None
    except KeyboardInterrupt:
        say("interrupted; everything is stopped")
        raise SystemExit(130) from None
    finally:
        servers.stop(0)


def say(text: str) -> None:
    """Tell how far it is, beside the figures."""
    print(text, file=sys.stderr, flush=True)
