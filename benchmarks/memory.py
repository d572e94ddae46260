"""The part ``memory``: what a worker keeps resident while requests come at a steady rate for minutes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from dataclasses import asdict
from statistics import median
from typing import Any, NamedTuple

from benchmarks.client import Client
from benchmarks.contenders import Running
from benchmarks.measure import open_loop, warm_up
from benchmarks.servers import Place, say
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.waiting import until

#: First and last are a tenth of the run each, of ten minutes a minute; the tenth before the first is for caches to fill.
_TENTH = 0.1


class Kept(NamedTuple):
    """MB (10^6 bytes): medians of the first tenth after the warm-up and of the last tenth, and the most that was seen."""

    first: float
    last: float
    most: float


async def measure(place: Place, sizes: Sizes) -> dict[str, Any]:
    """One worker under an open loop."""
    stage = Stage(place, sizes, sizes.fewer_numbers)
    await stage.load()
    gc.collect()
    gc.freeze()
    series: list[tuple[float, float]] = []
    async with Client(stage.settings) as client:
        with stage.worker() as worker:
            await until(worker.says_ready, "the worker is ready", worker.check)
            await warm_up(worker, client, stage.workload, "memory")
            watching = asyncio.create_task(_watch(worker, series, sizes.memory_every_s))
            try:
                latency = await open_loop(worker, client, stage.workload, "memory-open", sizes.memory_rate, sizes.memory_seconds)
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
    return {"latency": asdict(latency), "resident_mb": series}


async def _watch(worker: Running, series: list[tuple[float, float]], every_s: float) -> None:
    """Note seconds since the start and MB, until cancelled."""
    began = time.monotonic()
    while True:
        elapsed, resident = time.monotonic() - began, worker.resident_mb()
        series.append((round(elapsed, 1), round(resident, 1)))
        say(f"  {elapsed:.0f} s: {resident:.0f} MB")
        await asyncio.sleep(every_s)


def kept(series: list[list[float]]) -> Kept:
    """What a series of seconds and MB comes to."""
    whole = series[-1][0]
    first = [mb for at, mb in series if _TENTH * whole <= at <= 2 * _TENTH * whole]
    last = [mb for at, mb in series if at >= (1 - _TENTH) * whole]
    return Kept(median(first or [series[0][1]]), median(last), max(mb for _, mb in series))
