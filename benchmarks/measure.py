"""The two measurements: a backlog decided as fast as it goes, and the latency of an open loop at a steady rate."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass

from benchmarks.client import Answer, Client
from benchmarks.contenders import Running
from benchmarks.workload import Asking, Workload

_WARM_UP = 2000
_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests the backlog holds, and the open loop: ``rate`` requests a second for so many seconds."""

    backlog: int
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contender showed in one repeat. CPU seconds are those of its own process, per 100,000 decisions; MB are 10^6 bytes."""

    decisions_per_s: float
    cpu_s_backlog: float
    cpu_s_open_loop: float
    p50_ms: float
    p99_ms: float
    resident_mb: float


async def warm_up(running: Running, client: Client, workload: Asking, label: str) -> None:
    """Wait until a contender answers, and let it fill its caches: it is measured as it is after its first seconds, not before."""
    requests = list(workload.requests(f"{label}-warm", min(_WARM_UP, len(workload))))
    await client.write(requests)
    await client.read_until({request.request_id for request in requests}, _WITHIN_S, running.check)


async def backlog(running: Running, client: Client, workload: Asking, label: str, count: int) -> tuple[float, float, dict[int, Answer]]:
    """Have a backlog decided.

    The contender is paused while the backlog is written, so start-up and load take no part in the figures: the clock runs from the
    moment at which it goes on until the broker takes in its last decision.

    Returns:
        Decisions a second, CPU seconds per 100,000, and the answers by place in the workload.
    """
    requests = list(workload.requests(label, count))
    before, cpu_before = await client.count(), running.cpu_s()
    running.pause()
    try:
        await client.write(requests)
    finally:
        began = time.time()
        running.resume()
    await client.counted(before + len(requests), _WITHIN_S, running.check)
    cpu_s = running.cpu_s() - cpu_before
    await client.read_until({request.request_id for request in requests}, _WITHIN_S, running.check)
    answered = [client.answered[request.request_id] for request in requests]
    took_s = max(one.logged_at for one in answered) - began
    return len(requests) / took_s, cpu_s / len(requests) * 100_000, {place: one.answer for place, one in enumerate(answered)}


async def open_loop(
    running: Running, client: Client, workload: Workload, label: str, rate: float, seconds: float
) -> tuple[list[float], float]:
    """Send requests at a steady rate. Latency runs from when a request was due until its decision was read.

    Returns:
        Latencies in milliseconds, sorted, and CPU seconds per 100,000 decisions.
    """
    requests = list(workload.open_loop(label, round(rate * seconds)))
    cpu_before = running.cpu_s()
    reading = asyncio.create_task(client.read())
    try:
        due = await client.write_at(requests, rate)
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    await client.read_until(set(due), _WITHIN_S, running.check)
    cpu_s = running.cpu_s() - cpu_before
    latencies = sorted((client.answered[request_id].read_at - at) * 1000 for request_id, at in due.items())
    return latencies, cpu_s / len(requests) * 100_000


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that is not exceeded by ``share`` of them (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def sample(running: Running, client: Client, workload: Workload, label: str, load: Load) -> tuple[Sample, dict[int, Answer]]:
    """Take both measurements of a contender that has just been started, and leave its offsets committed."""
    await warm_up(running, client, workload, label)
    per_s, cpu_backlog, answers = await backlog(running, client, workload, f"{label}-backlog", load.backlog)
    latencies, cpu_open = await open_loop(running, client, workload, f"{label}-open", load.rate, load.seconds)
    await client.committed(_WITHIN_S, running.check)
    taken = Sample(per_s, cpu_backlog, cpu_open, percentile(latencies, 0.5), percentile(latencies, 0.99), running.resident_mb())
    return taken, answers
