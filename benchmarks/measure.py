"""The two measurements: a backlog decided as fast as it goes, and the latency of an open loop at a steady rate."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.client import Answer, Client
from benchmarks.contenders import RINGFENCE
from benchmarks.workload import Asking, Workload


class Program(Protocol):
    """What is measured: one process, or several that share the work."""

    def check(self) -> None:
        """Raise if it has ended."""

    def pause(self) -> None:
        """Stop it where it stands."""

    def resume(self) -> None:
        """Let it run on."""

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        ...


@dataclass(frozen=True, slots=True)
class Latency:
    """An open loop: from when a request was due until its decision was read, and CPU seconds per 100,000 decisions."""

    p50_ms: float
    p99_ms: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contender showed in one repeat.

    CPU seconds are those of its own process, per 100,000 decisions; MB are 10^6 bytes, after it all; open loops are by their rate,
    requests a second.
    """

    decisions_per_s: float
    cpu_s: float
    resident_mb: float
    open_loops: dict[str, Latency] = field(default_factory=dict)


async def warm_up(program: Program, client: Client, workload: Asking, label: str, count: int = RINGFENCE.warm_up) -> None:
    """Wait until a contender answers, and let it fill its caches: it is measured as it is after its first seconds, not before."""
    requests = list(workload.requests(f"{label}-warm", min(count, len(workload))))
    await client.write(requests)
    await client.read_until({request.request_id for request in requests}, program.check)


async def backlog(program: Program, client: Client, workload: Asking, label: str, count: int) -> tuple[float, float, dict[int, Answer]]:
    """Have a backlog decided.

    The contender is paused while the backlog is written, so start-up and load take no part in the figures: the clock runs from the
    moment at which it goes on until the broker takes in its last decision.

    Returns:
        Decisions a second, CPU seconds per 100,000, and the answers by place in the workload.
    """
    requests = list(workload.requests(label, count))
    before, cpu_before = await client.count(), program.cpu_s()
    program.pause()
    try:
        await client.write(requests)
    finally:
        began = time.time()
        program.resume()
    await client.counted(before + len(requests), program.check)
    cpu_s = program.cpu_s() - cpu_before
    await client.read_until({request.request_id for request in requests}, program.check)
    answered = [client.answered[request.request_id] for request in requests]
    took_s = max(one.logged_at for one in answered) - began
    return len(requests) / took_s, cpu_s / len(requests) * 100_000, {place: one.answer for place, one in enumerate(answered)}


async def open_loop(program: Program, client: Client, workload: Workload, label: str, rate: float, seconds: float) -> Latency:
    """Send requests at a steady rate, whether or not the program keeps up."""
    requests = list(workload.open_loop(label, round(rate * seconds)))
    cpu_before = program.cpu_s()
    reading = asyncio.create_task(client.read())
    try:
        due = await client.write_at(requests, rate)
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    await client.read_until(set(due), program.check)
    cpu_s = program.cpu_s() - cpu_before
    latencies = sorted((client.answered[request_id].read_at - at) * 1000 for request_id, at in due.items())
    return Latency(percentile(latencies, 0.5), percentile(latencies, 0.99), cpu_s / len(requests) * 100_000)


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that is not exceeded by ``share`` of them (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
