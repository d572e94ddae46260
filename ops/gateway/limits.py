"""How much one client may ask of the gateway: the size of a request, and how many a second."""

from __future__ import annotations

from http import HTTPStatus
from time import monotonic

from starlette.requests import Request

from ops.gateway.problems import Problem

#: Of one record. The largest request of the contract has some 3 KiB; texts may be longer, but not without end.
RECORD_BYTES = 64 * 1024
#: Of a bulk request: some 30,000 call requests.
BULK_BYTES = 16 * 1024 * 1024


class Rate:
    """Lets ``per_second`` through, and as many at once; 0 lets everything through."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = max(1.0, per_second)
        self._at = monotonic()

    def wait_s(self) -> float:
        """Take one: 0 if it may go on, else in how many seconds it might."""
        if not self._per_second:
            return 0.0
        now = monotonic()
        self._left = min(max(1.0, self._per_second), self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._per_second


async def body(request: Request, most: int) -> bytes:
    """What a client sends, read whole.

    Raises:
        Problem: 413, it is longer than ``most`` bytes; not all of it is read then.
    """
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told) > most:
        raise _too_large(most)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


def _too_large(most: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most} bytes", reason="size", code="too_large")
