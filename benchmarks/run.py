"""A whole run: load the facts, then measure the contenders in turn, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from benchmarks.client import Answer, Client
from benchmarks.contenders import CONTENDERS, RINGFENCE, TEXTBOOK, Contender, Running
from benchmarks.measure import Load, Sample, sample
from benchmarks.workload import Workload
from config.settings import Settings
from streams.topics import ensure_topics

_PARTITIONS = 8
_IN_FLIGHT = 5000
_LOADED_WITHIN_S = 600.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    ``seconds`` at ``rate`` requests a second are the open loop; everybody is measured ``repeat`` times. The text-book agent gets
    ``textbook_share`` of the backlog, which is enough to tell its rate.
    """

    requests: int = 100_000
    numbers: int = 100_000
    seed: int = 1
    repeat: int = 3
    rate: float = 1000.0
    seconds: float = 20.0
    textbook_share: float = 0.2


@dataclass(slots=True)
class Results:
    """Samples by contender, in order of the repeats, and what became of the comparison of decisions."""

    options: Options
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    approved_share: float = 0.0
    compared: int = 0
    different: int = 0


class Bench:
    """One run on given servers, under a topic prefix of its own."""

    def __init__(self, kafka: str, redis_url: str, prefix: str, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        self._settings = {
            contender.name: Settings(
                kafka=kafka,
                redis=SecretStr(redis_url),
                topic_prefix=f"{prefix}{contender.name}.",
                group=f"{prefix}{contender.name}",
                redis_prefix=f"{prefix}{RINGFENCE.name}",
                partitions=_PARTITIONS,
                embedded=True,
            )
            for contender in CONTENDERS
        }

    async def run(self) -> Results:
        """Load and measure; every process that was started has ended when this returns or raises."""
        options, results = self._options, Results(self._options)
        self._say(f"generating {options.numbers:,} numbers and {options.requests:,} requests from seed {options.seed}")
        workload = Workload(options.seed, options.numbers, options.requests, _PARTITIONS)
        for settings in self._settings.values():
            await ensure_topics(settings)
        with tempfile.TemporaryDirectory(prefix="ringfence-bench-", ignore_cleanup_errors=True) as folder:
            await self._load(workload, Path(folder))
            for repeat in range(options.repeat):
                answers = {
                    contender.name: await self._measure(contender, workload, f"r{repeat}", Path(folder), results)
                    for contender in CONTENDERS
                }
                _compare(answers[RINGFENCE.name], answers[TEXTBOOK.name], results)
        return results

    async def _load(self, workload: Workload, folder: Path) -> None:
        """Put reference data and facts on Kafka, and have the guard write the state that it and the text-book agent read."""
        self._say(f"loading {len(workload.facts):,} facts")
        guard, textbook = self._settings[RINGFENCE.name], self._settings[TEXTBOOK.name]
        producer = AIOKafkaProducer(**guard.kafka_client(), acks="all", linger_ms=5)
        async with producer:
            records = [
                (settings.topic(event.topic), event.key.encode(), event.encoded())
                for event in workload.reference
                for settings in (guard, textbook)
            ]
            records += [(guard.topic(topic), key, value) for topic, key, value in workload.facts]
            sent = list[asyncio.Future[Any]]()
            for topic, key, value in records:
                sent.append(await producer.send(topic, value, key))
                if len(sent) >= _IN_FLIGHT:
                    await asyncio.gather(*sent)
                    sent.clear()
            await asyncio.gather(*sent)
        began = time.monotonic()
        with self._started(RINGFENCE, workload, folder) as running:
            await self._loaded(running)
        self._say(f"loaded in {time.monotonic() - began:.1f} s")

    async def _loaded(self, running: Running) -> None:
        """Wait until a guard has taken in all facts."""
        deadline = time.monotonic() + _LOADED_WITHIN_S
        while not running.says("ready"):
            running.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the facts are not loaded after {_LOADED_WITHIN_S:.0f} s")
            await asyncio.sleep(0.1)

    async def _measure(self, contender: Contender, workload: Workload, label: str, folder: Path, results: Results) -> dict[int, Answer]:
        options, settings = self._options, self._settings[contender.name]
        await self._forget_decisions()
        # The client keeps the workload for the whole run: left to the collector, walking over it would count as latency.
        gc.collect()
        gc.freeze()
        async with Client(settings) as client:
            with self._started(contender, workload, folder) as running:
                if contender is RINGFENCE:
                    await self._loaded(running)
                count = round(len(workload) * (options.textbook_share if contender is TEXTBOOK else 1))
                taken, answers = await sample(running, client, workload, label, Load(max(1, count), options.rate, options.seconds))
        results.samples.setdefault(contender.name, []).append(taken)
        self._say(
            f"{label} {contender.title}: {taken.decisions_per_s:,.0f}/s, {taken.cpu_s_backlog:.2f} CPU s per 100,000; "
            f"at {options.rate:,.0f}/s p50 {taken.p50_ms:.1f} ms, p99 {taken.p99_ms:.1f} ms"
        )
        return answers

    @contextlib.contextmanager
    def _started(self, contender: Contender, workload: Workload, folder: Path) -> Iterator[Running]:
        with Running(contender, self._settings[contender.name], workload.clock_start_s, folder) as running:
            yield running

    async def _forget_decisions(self) -> None:
        """Drop what the guard remembers of requests, so that every repeat begins with facts alone."""
        settings = self._settings[RINGFENCE.name]
        async with redis.Redis.from_url(settings.redis.get_secret_value()) as client:
            for kind in ("e:*", "j"):
                keys = [key async for key in client.scan_iter(match=f"{settings.redis_prefix}:{{*}}:{kind}", count=5000)]
                for start in range(0, len(keys), 5000):
                    await client.unlink(*keys[start : start + 5000])


def _compare(guard: dict[int, Answer], textbook: dict[int, Answer], results: Results) -> None:
    results.approved_share = sum(answer.decision == "approved" for answer in guard.values()) / len(guard)
    results.compared += len(textbook)
    results.different += sum(_substance(guard[place]) != _substance(answer) for place, answer in textbook.items())


def _substance(answer: Answer) -> tuple[object, ...]:
    return answer.decision, answer.basis, answer.reasons, answer.warnings, answer.regime
