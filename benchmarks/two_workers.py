"""The part ``two-workers``: what a decision costs in CPU when two workers share the partitions, against one worker alone."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.client import Client
from benchmarks.contenders import Running
from benchmarks.measure import backlog, warm_up
from benchmarks.servers import PARTITIONS, Place, say
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.waiting import until
from rules.events import REQUEST_TOPIC


@dataclass(frozen=True, slots=True)
class Shared:
    """A backlog: decisions a second, CPU seconds of all workers together per 100,000, and the CPU seconds of each."""

    decisions_per_s: float
    cpu_s: float
    cpu_s_each: list[float]


class Team:
    """Workers of one group, paused and measured as one."""

    def __init__(self, workers: list[Running]) -> None:
        self._workers = workers

    def check(self) -> None:
        """Make sure that all of them run.

        Raises:
            RuntimeError: one ended.
        """
        for worker in self._workers:
            worker.check()

    def pause(self) -> None:
        """Stop all of them."""
        for worker in self._workers:
            worker.pause()

    def resume(self) -> None:
        """Let all of them run on."""
        for worker in self._workers:
            worker.resume()

    def cpu_s(self) -> float:
        """CPU seconds of all together."""
        return sum(self.cpu_s_each())

    def cpu_s_each(self) -> list[float]:
        """CPU seconds of each."""
        return [worker.cpu_s() for worker in self._workers]

    async def balanced(self) -> None:
        """Wait until each has taken over an equal share of the partitions."""
        share = PARTITIONS // len(self._workers)

        async def all_have_theirs() -> bool:
            return all(worker.partitions_ready() == share for worker in self._workers)

        await until(all_have_theirs, f"{len(self._workers)} workers share {PARTITIONS} partitions", self.check)


async def measure(place: Place, sizes: Sizes) -> dict[str, Any]:
    """One worker and two, alternately, on the same topics and the same state."""
    stage = Stage(place, sizes, sizes.fewer_numbers)
    await stage.load()
    samples: dict[str, list[Shared]] = {"one": [], "two": []}
    for repeat in range(sizes.repeat):
        for count, (name, taken) in enumerate(samples.items(), start=1):
            taken.append(await _share(stage, count, f"r{repeat}-{name}", sizes.requests))
            say(f"r{repeat} {name}: {taken[-1].decisions_per_s:,.0f}/s, {taken[-1].cpu_s:.2f} CPU s per 100,000")
    return {"samples": {name: [asdict(one) for one in taken] for name, taken in samples.items()}}


async def _share(stage: Stage, count: int, label: str, requests: int) -> Shared:
    await stage.forget_decisions()
    gc.collect()
    gc.freeze()
    async with Client(stage.settings) as client:
        with ExitStack() as running:
            team = Team([running.enter_context(stage.worker(f"worker-{n}")) for n in range(count)])
            await team.balanced()
            await warm_up(team, client, stage.workload, label)
            before = team.cpu_s_each()
            per_s, cpu_s, _ = await backlog(team, client, stage.workload, label, requests)
            each = [round(after - earlier, 2) for after, earlier in zip(team.cpu_s_each(), before, strict=True)]
            await client.committed([REQUEST_TOPIC], team.check)
    return Shared(per_s, cpu_s, each)
