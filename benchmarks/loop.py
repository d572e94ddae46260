"""The open loop: requests go out at a steady rate whether or not anybody keeps up, and count from when they were due."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.client import Client
from benchmarks.measure import percentile
from benchmarks.servers import say
from benchmarks.workload import Request

_LOOK_S = 0.05
_TICK_S = 0.0005
_TELL_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one rate showed.

    Attributes:
        rate: requests a second.
        sent: requests that went out.
        latencies_ms: sorted, of those that got a decision: from when a request was due until its decision was read.
        failed: over HTTP, answers other than a decision, by what they were.
    """

    rate: float
    sent: int
    latencies_ms: list[float]
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def missing(self) -> int:
        """Requests without a decision."""
        return self.sent - len(self.latencies_ms)

    def as_json(self) -> dict[str, Any]:
        """The figures; milliseconds are null where nothing was decided."""
        taken = self.latencies_ms
        shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
        latencies = {name: round(percentile(taken, share), 2) if taken else None for name, share in shares.items()}
        return {"rate": self.rate, "sent": self.sent, "missing": self.missing, **latencies, "failed": dict(self.failed)}


async def over_kafka(client: Client, requests: Iterable[Request], rate: float, grace_s: float) -> Sample:
    """Put requests on Kafka and read the decisions; those that have not come ``grace_s`` after the last request are missing."""
    reading = asyncio.create_task(client.read())
    try:
        due = await client.write_at(_told(requests), rate)
        ended = time.monotonic()
        while any(request_id not in client.answered for request_id in due) and time.monotonic() - ended < grace_s:
            if reading.done():
                reading.result()
            await asyncio.sleep(_LOOK_S)
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    latencies = [
        (client.answered.pop(request_id).read_at - at) * 1000 for request_id, at in due.items() if request_id in client.answered
    ]
    return Sample(rate, len(due), sorted(latencies))


async def over_http(session: aiohttp.ClientSession, url: str, requests: Iterable[Request], rate: float, grace_s: float) -> Sample:
    """Post requests to a gateway; whatever is no decision is missing, and counted by what it was."""
    latencies: list[float] = []
    failed: Counter[str] = Counter()
    posting: set[asyncio.Task[None]] = set()

    async def post(request: Request, due: float) -> None:
        try:
            async with session.post(url, data=request.value, headers={"Content-Type": "application/json"}) as response:
                answer = await response.json(content_type=None)
            if response.status == 200 and answer.get("request_id") == request.request_id and answer.get("decision"):
                latencies.append((time.monotonic() - due) * 1000)
            else:
                failed[f"status {response.status}"] += 1
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            failed[type(error).__name__] += 1

    start, sent = time.monotonic(), 0
    for request in _told(requests):
        due = start + sent / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(max(wait, _TICK_S))
        task = asyncio.create_task(post(request, due))
        posting.add(task)
        task.add_done_callback(posting.discard)
        sent += 1
        if sent % 20 == 0:
            await asyncio.sleep(0)  # a loop that is behind never waits above: let answers be read
    if posting:
        _, late = await asyncio.wait(posting, timeout=grace_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return Sample(rate, sent, sorted(latencies), failed)


def _told(requests: Iterable[Request]) -> Iterator[Request]:
    """Say now and then how many have gone out."""
    said = time.monotonic()
    for count, request in enumerate(requests, start=1):
        yield request
        if time.monotonic() - said > _TELL_EVERY_S:
            said = time.monotonic()
            say(f"  {count:,} requests sent")
