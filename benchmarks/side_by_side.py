"""The part ``contenders``: the guard beside a text-book Faust agent, an echo and Kafka Streams, in turn, again and again."""

from __future__ import annotations

import gc
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.client import Answer, Client
from benchmarks.contenders import ECHO, RINGFENCE, TEXTBOOK, Contender
from benchmarks.measure import Sample, backlog, open_loop, warm_up
from benchmarks.peer import kafka_streams
from benchmarks.servers import PARTITIONS, Place, say
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.waiting import until
from benchmarks.workload import Small
from rules.events import REQUEST_TOPIC

#: Samples of the echo with small records, whose rate tells how fast a machine is.
SMALL_ECHO = "echo-200"
#: The text-book agent does not keep up with more, and its backlog would take minutes.
_TEXTBOOK_RATE = 1000.0
_TEXTBOOK_SECONDS = 5.0


@dataclass(slots=True)
class _Found:
    """Samples by contender, in order of the repeats, and what became of the comparison of decisions."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    approved_share: float = 0.0
    compared: int = 0
    different: int = 0

    def add(self, name: str, sample: Sample) -> None:
        self.samples.setdefault(name, []).append(sample)

    def compare(self, guard: dict[int, Answer], textbook: dict[int, Answer]) -> None:
        """Count decisions that are not the same."""
        self.approved_share = sum(answer.decision == "approved" for answer in guard.values()) / len(guard)
        self.compared += len(textbook)
        self.different += sum(_substance(guard[place]) != _substance(answer) for place, answer in textbook.items())


def measure(place: Place, sizes: Sizes) -> Coroutine[Any, Any, dict[str, Any]]:
    """Build the peer where that is possible; then load and measure.

    Every process that was started has ended when the coroutine returns or raises.
    """
    peer = kafka_streams() if sizes.peer else "it was not asked for"
    if isinstance(peer, str):
        say(f"Kafka Streams is left out: {peer}")
    return _Contest(place, sizes, peer).run()


class _Contest:
    def __init__(self, place: Place, sizes: Sizes, peer: Contender | str) -> None:
        self._sizes = sizes
        self._stage = Stage(place, sizes, sizes.numbers)
        self._left_out = peer if isinstance(peer, str) else None
        self._settings = {
            RINGFENCE: self._stage.settings,
            TEXTBOOK: place.settings(TEXTBOOK.name, state=RINGFENCE.name),
            ECHO: place.settings(ECHO.name),
        }
        if isinstance(peer, Contender):
            self._settings[peer] = place.settings(peer.name)
        self._found = _Found()

    async def run(self) -> dict[str, Any]:
        await self._stage.load(self._settings)
        for repeat in range(self._sizes.repeat):
            answers = {contender: await self._measure(contender, f"r{repeat}") for contender in self._settings}
            self._found.compare(answers[RINGFENCE], answers[TEXTBOOK])
        found = self._found
        return {
            "kafka_streams_left_out": self._left_out,
            "approved_share": round(found.approved_share, 4),
            "decisions_compared": found.compared,
            "decisions_different": found.different,
            "samples": {name: [asdict(sample) for sample in samples] for name, samples in found.samples.items()},
        }

    async def _measure(self, contender: Contender, label: str) -> dict[int, Answer]:
        """Take one sample of a contender that is started for it, and leave its offsets committed."""
        sizes, stage, settings = self._sizes, self._stage, self._settings[contender]
        await stage.forget_decisions()
        # The client keeps the workload for the whole run: left to the collector, walking over it would count as latency.
        gc.collect()
        gc.freeze()
        count = min(sizes.textbook_requests, sizes.requests) if contender is TEXTBOOK else sizes.requests
        async with Client(settings) as client:
            with stage.started(contender, settings) as running:
                if contender.says_ready:
                    await until(running.says_ready, f"{contender.title} is ready", running.check)
                if contender not in {RINGFENCE, TEXTBOOK} and contender.reads:
                    await client.committed(contender.reads, running.check)
                await warm_up(running, client, stage.workload, label, contender.warm_up)
                per_s, cpu_s, answers = await backlog(running, client, stage.workload, f"{label}-backlog", count)
                if contender is ECHO:
                    small = Small(sizes.requests, PARTITIONS)
                    small_per_s, small_cpu_s, _ = await backlog(running, client, small, f"{label}-small", len(small))
                    self._found.add(SMALL_ECHO, Sample(small_per_s, small_cpu_s, running.resident_mb()))
                loops = {
                    f"{rate:g}": await open_loop(running, client, stage.workload, f"{label}-open-{rate:g}", rate, seconds)
                    for rate, seconds in self._loops(contender)
                }
                await client.committed([REQUEST_TOPIC], running.check)
                sample = Sample(per_s, cpu_s, running.resident_mb(), loops)
        self._found.add(contender.name, sample)
        latencies = "".join(f"; at {rate}/s p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms" for rate, one in loops.items())
        say(f"{label} {contender.title}: {per_s:,.0f}/s, {cpu_s:.2f} CPU s per 100,000{latencies}")
        return answers

    def _loops(self, contender: Contender) -> list[tuple[float, float]]:
        """Rates and lengths of the open loops."""
        if contender is not TEXTBOOK:
            return [(rate, self._sizes.seconds) for rate in self._sizes.rates]
        return [(rate, min(self._sizes.seconds, _TEXTBOOK_SECONDS)) for rate in self._sizes.rates if rate <= _TEXTBOOK_RATE]


def _substance(answer: Answer) -> tuple[object, ...]:
    return answer.decision, answer.basis, answer.reasons, answer.warnings, answer.regime
