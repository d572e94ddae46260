"""Waiting for a condition, with a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

#: A machine that is busy may take minutes over a backlog; what takes longer than this has come to nothing.
WITHIN_S = 300.0


async def until(
    holds: Callable[[], Awaitable[bool]], what: str, check: Callable[[], None], *, within_s: float = WITHIN_S, every_s: float = 0.1
) -> None:
    """Wait until something holds.

    Args:
        holds: looked at again and again.
        what: is waited for, as a message says it.
        check: raises if there is nothing to wait for any more, because a process has ended.
        within_s: the bound.
        every_s: between two looks.

    Raises:
        TimeoutError: it does not hold within the time.
    """
    deadline = time.monotonic() + within_s
    while not await holds():
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within_s:.0f} s in vain: {what}")
        await asyncio.sleep(every_s)
