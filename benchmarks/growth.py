"""The part ``growth``: what a decision costs as the count of numbers grows, and the count of facts a number.

States are written straight into Redis, as a worker would have written them: applying the facts of millions of numbers is measured by
``benchmarks.rebuild``. The first size is measured again at the end, to tell growth from a machine that has become slower meanwhile.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import msgspec
import redis.asyncio as redis

from benchmarks.client import Client
from benchmarks.contenders import RINGFENCE, Running
from benchmarks.measure import backlog, warm_up
from benchmarks.servers import PARTITIONS, Place, say
from benchmarks.sizes import Sizes
from benchmarks.town import CLOCK_START, Size, Town, facts_of, number_of, reference, state_of
from benchmarks.waiting import until
from config.settings import Settings
from ops.load import producer_for
from rules.instants import SECOND
from streams.partitioner import partition_of
from streams.state import Store
from streams.topics import ensure_topics

_AT_ONCE = 1_000

_encode = msgspec.json.Encoder().encode


async def measure(place: Place, sizes: Sizes) -> dict[str, Any]:
    """One size after the other, and the first again. The Redis is emptied before each."""
    few, many = sizes.growth_numbers, sizes.growth_facts
    towns = [Size(numbers, 2) for numbers in few] + [Size(sizes.growth_facts_numbers, facts) for facts in many] + [Size(few[0], 2)]
    return {"sizes": [await _measure(place, sizes, size, f"growth-{n}") for n, size in enumerate(towns)]}


async def _measure(place: Place, sizes: Sizes, size: Size, name: str) -> dict[str, Any]:
    """Decisions a second and CPU of one worker, backlog."""
    settings = place.settings(name)
    await ensure_topics(settings)
    client, store = redis.Redis.from_url(place.redis), Store(settings)
    try:
        await client.flushdb()
        await _found(place, settings, store)
        await _write_states(store, size)
        town = Town(size, sizes.growth_requests, sizes.seed)
        rates, cpu = [], []
        async with Client(settings) as asking:
            with Running(RINGFENCE, settings, CLOCK_START / SECOND, place.folder) as worker:
                await until(worker.says_ready, "the worker is ready", worker.check)
                await warm_up(worker, asking, town, name)
                for n in range(sizes.repeat):
                    per_s, cpu_s, answers = await backlog(worker, asking, town, f"{name}-{n}", len(town))
                    if any(answer.basis != "OK_CONSENT" for answer in answers.values()):
                        raise RuntimeError("not every call was approved for its consent; another job would be measured")
                    rates.append(round(per_s))
                    cpu.append(round(cpu_s, 2))
    finally:
        await store.close()
        await client.aclose()
    say(f"{size.numbers:,} numbers, {size.facts} facts: {median(rates):,.0f}/s, {median(cpu):.1f} CPU s per 100,000")
    return {"numbers": size.numbers, "facts": size.facts, "decisions_per_s": rates, "cpu_s_per_100000": cpu}


async def _found(place: Place, settings: Settings, store: Store) -> None:
    """Have a worker take over every partition and apply a fact of each, so that what Redis holds counts as its state."""
    producer = producer_for(settings)
    await producer.start()
    try:
        for topic, value in reference():
            key = value.get("party_id") or value.get("campaign_id") or value["number"]
            await producer.send_and_wait(settings.topic(topic), _encode(value), key.encode(), partition=0)
        for partition in range(PARTITIONS):
            of = next(one for one in map(number_of, range(10_000)) if partition_of(one.encode(), PARTITIONS) == partition)
            for topic, value in facts_of(of, 1):
                await producer.send_and_wait(settings.topic(topic), _encode(value), of.encode())
        with Running(RINGFENCE, settings, CLOCK_START / SECOND, place.folder) as worker:

            async def applied() -> bool:
                pulses = await store.pulses(range(PARTITIONS))
                return all(meta is not None and meta.applied.get("consents") == 1 for meta, _ in pulses.values())

            await until(applied, "a fact of each partition is applied", worker.check)
    finally:
        await producer.stop()


async def _write_states(store: Store, size: Size) -> None:
    # The state of a number differs from another's in the number alone, and all numbers are of the same length.
    model = number_of(0)
    template = state_of(model, size.facts)
    started, pulses = time.monotonic(), await store.pulses(range(PARTITIONS))
    waiting: dict[int, dict[str, bytes]] = {partition: {} for partition in range(PARTITIONS)}

    async def write(partition: int) -> None:
        meta = pulses[partition][0]
        if meta is None or not await store.restore(partition, meta, waiting[partition], "s"):
            raise RuntimeError("the state of a partition has changed while its numbers were written")
        waiting[partition].clear()

    for n in range(size.numbers):
        number = number_of(n)
        partition = partition_of(number.encode(), PARTITIONS)
        waiting[partition][number] = template.replace(model.encode(), number.encode())
        if len(waiting[partition]) >= _AT_ONCE:
            await write(partition)
    for partition in waiting:
        await write(partition)
    say(f"{size.numbers:,} states written in {time.monotonic() - started:.0f} s")
