"""``python -m benchmarks.growth``: what a decision costs as the count of numbers grows, and the count of facts a number.

States are written straight into Redis, as a worker would have written them: applying the facts of millions of numbers is measured by
``benchmarks.rebuild``. The first size is measured again at the end, to tell growth from a machine that has become slower meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import redis.asyncio as redis

from benchmarks.client import Client
from benchmarks.contenders import RINGFENCE, Running
from benchmarks.measure import backlog, warm_up
from benchmarks.report import machine, versions
from benchmarks.servers import on_own_servers, say
from benchmarks.workload import Request
from config.settings import Settings
from ops.load import producer_for
from rules.events import read_event
from rules.facts import NumberFacts
from rules.instants import MINUTE, SECOND, format_instant, parse_instant
from streams.embedded import EmbeddedServers
from streams.kept import pack
from streams.partitioner import partition_of
from streams.state import Store
from streams.topics import ensure_topics

_CLOCK_START = parse_instant("2026-11-23T09:00:00Z")
_PARTITIONS = 8
_READY_S = 60.0
_AT_ONCE = 1_000
_SHOWN = "+31880000001"

_encode = msgspec.json.Encoder().encode
Event = tuple[str, dict[str, Any]]


class Size(NamedTuple):
    """So many numbers with so many facts each."""

    numbers: int
    facts: int


@dataclass(frozen=True, slots=True)
class Town:
    """Numbers that all have a consent, and requests about them, picked at random; the same for the same seed."""

    size: Size
    count: int
    seed: int = 1

    def __len__(self) -> int:
        return self.count

    def requests(self, label: str, count: int) -> Iterator[Request]:
        """Requests under ids of their own, dialled ten minutes after the clock starts."""
        pick = random.Random(f"{self.seed} {label}")
        common = {
            "dial_at": format_instant(_CLOCK_START + 10 * MINUTE), "advertiser_id": "adv-1", "campaign_id": "c-1",
            "purpose": "commercial", "subject": "energy", "own_offer": True, "dialling_mode": "manual",
            "cli": {"number": _SHOWN, "withheld": False},
            "person_ref": "p-1",
        }  # fmt: skip
        for index in range(count):
            number = _number(pick.randrange(self.size.numbers))
            key = number.encode()
            value = _encode({"request_id": f"{label}-{index}", "number": number, **common})
            yield Request(f"{label}-{index}", key, value, partition_of(key, _PARTITIONS))


def _number(n: int) -> str:
    return f"+316{10_000_000 + n}"


def _reference() -> Iterator[Event]:
    yield "parties", {"party_id": "adv-1", "name": "One", "legal_form": "private_company"}
    yield "campaigns", {"campaign_id": "c-1", "advertiser_id": "adv-1", "objection_offered": True, "abandoned_share_24h": 0.0}
    yield "caller-numbers", {
        "number": _SHOWN, "owner_id": "adv-1", "callable_back": True, "tariff": "normal", "published_by": ["adv-1"],
    }  # fmt: skip


def _facts(number: str, count: int) -> Iterator[Event]:
    """A good consent, an objection against another advertiser, and unanswered calls of that one."""
    common = {"number": number, "at": "2026-11-20T10:00:00Z"}
    yield "consents", {
        "event_id": f"c-{number}", **common, "kind": "given", "party_ids": ["adv-1"], "subjects": ["energy"], "channels": ["telephone"],
        "capture": "unticked_box", "evidence": {"uri": f"https://crm.example/{number}", "sha256": "00"}, "person_ref": "p-1",
        "verified_by": "sms", "giver_age": 44,
    }  # fmt: skip
    if count > 1:
        yield "objections", {"event_id": f"o-{number}", **common, "advertiser_id": "adv-2"}
    for n in range(2, count):
        yield "call-outcomes", {
            "event_id": f"r-{number}-{n}", **common, "advertiser_id": "adv-2", "campaign_id": "c-2", "result": "no_answer",
        }  # fmt: skip


def _state(number: str, count: int) -> bytes:
    facts = NumberFacts()
    for topic, value in _facts(number, count):
        facts.apply(read_event(topic, number.encode(), _encode(value))[0])  # type: ignore[arg-type]  # a fact of a number
    return pack(facts)


class Growth:
    """Measures one size after the other on given servers."""

    def __init__(self, servers: EmbeddedServers, folder: Path, requests: int, repeat: int) -> None:
        self._servers = servers
        self._folder = folder
        self._requests = requests
        self._repeat = repeat

    async def measure(self, size: Size, name: str) -> dict[str, Any]:
        """Decisions a second and CPU of one worker, backlog."""
        settings = Settings(
            kafka=self._servers.kafka.address, redis=self._servers.redis.url, embedded=True, topic_prefix=f"{name}.", group=name,
            redis_prefix=name, partitions=_PARTITIONS,
        )  # fmt: skip
        await ensure_topics(settings)
        client, store = redis.Redis.from_url(self._servers.redis.url), Store(settings)
        try:
            await client.flushall()
            await self._found(settings, store)
            await _write_states(store, size)
            town = Town(size, self._requests)
            rates, cpu = [], []
            async with Client(settings) as asking:
                with Running(RINGFENCE, settings, _CLOCK_START / SECOND, self._folder) as worker:
                    await _until(worker, lambda: worker.says("ready"))
                    await warm_up(worker, asking, town, name)
                    for n in range(self._repeat):
                        per_s, cpu_s, answers = await backlog(worker, asking, town, f"{name}-{n}", self._requests)
                        if any(answer.basis != "OK_CONSENT" for answer in answers.values()):
                            raise RuntimeError("not every call was approved for its consent; another job would be measured")
                        rates.append(round(per_s))
                        cpu.append(round(cpu_s, 2))
        finally:
            await store.close()
            await client.aclose()
        say(f"{size.numbers:,} numbers, {size.facts} facts: {median(rates):,.0f}/s, {median(cpu):.1f} CPU s per 100,000")
        return {"numbers": size.numbers, "facts": size.facts, "decisions_per_s": rates, "cpu_s_per_100000": cpu}

    async def _found(self, settings: Settings, store: Store) -> None:
        """Have a worker take over every partition and apply a fact of each, so that what Redis holds counts as its state."""
        producer = producer_for(settings)
        await producer.start()
        try:
            for topic, value in _reference():
                key = value.get("party_id") or value.get("campaign_id") or value["number"]
                await producer.send_and_wait(settings.topic(topic), _encode(value), key.encode(), partition=0)
            for partition in range(_PARTITIONS):
                number = next(one for one in map(_number, range(10_000)) if partition_of(one.encode(), _PARTITIONS) == partition)
                for topic, value in _facts(number, 1):
                    await producer.send_and_wait(settings.topic(topic), _encode(value), number.encode())
            with Running(RINGFENCE, settings, _CLOCK_START / SECOND, self._folder) as worker:

                async def applied() -> bool:
                    pulses = await store.pulses(range(_PARTITIONS))
                    return all(meta is not None and meta.applied.get("consents") == 1 for meta, _ in pulses.values())

                await _until(worker, applied)
        finally:
            await producer.stop()


async def _write_states(store: Store, size: Size) -> None:
    # The state of a number differs from another's in the number alone, and all numbers are of the same length.
    model = _number(0)
    template = _state(model, size.facts)
    started, pulses = time.monotonic(), await store.pulses(range(_PARTITIONS))
    waiting: dict[int, dict[str, bytes]] = {partition: {} for partition in range(_PARTITIONS)}

    async def write(partition: int) -> None:
        meta = pulses[partition][0]
        if meta is None or not await store.restore(partition, meta, waiting[partition], "s"):
            raise RuntimeError("the state of a partition has changed while its numbers were written")
        waiting[partition].clear()

    for n in range(size.numbers):
        number = _number(n)
        partition = partition_of(number.encode(), _PARTITIONS)
        waiting[partition][number] = template.replace(model.encode(), number.encode())
        if len(waiting[partition]) >= _AT_ONCE:
            await write(partition)
    for partition in waiting:
        await write(partition)
    say(f"{size.numbers:,} states written in {time.monotonic() - started:.0f} s")


async def _until(worker: Running, condition: Any) -> None:
    """Wait until a condition, plain or a coroutine function, holds of a worker that runs."""
    deadline = time.monotonic() + _READY_S
    while True:
        worker.check()
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the worker is not so far after {_READY_S:.0f} s")
        await asyncio.sleep(0.1)


def table(measured: list[dict[str, Any]]) -> str:
    """The figures in Markdown, with the rate beside that of the first line."""
    first = median(measured[0]["decisions_per_s"])
    headings = ("numbers", "facts a number", "decisions a second", "of the first", "CPU s per 100,000")
    lines = [_line(headings), "|---" * len(headings) + "|"]
    for one in measured:
        rates, cpu = one["decisions_per_s"], one["cpu_s_per_100000"]
        per_s = f"{median(rates):,.0f} ({min(rates):,} - {max(rates):,})"
        cpu_s = f"{median(cpu):.1f} ({min(cpu):.1f} - {max(cpu):.1f})"
        lines.append(_line((f"{one['numbers']:,}", str(one["facts"]), per_s, f"{median(rates) / first:.0%}", cpu_s)))
    return "\n".join(lines)


def picture(measured: list[dict[str, Any]]) -> str:
    """The rates as bars, each with a whisker from its lowest to its highest backlog (SVG, readable on light and dark paper)."""
    label, width, bar, gap = 260, 420, 18, 12
    most = max(max(one["decisions_per_s"]) for one in measured)
    height = len(measured) * (bar + gap) + 30
    rows = []
    for position, one in enumerate(measured):
        rates, top = one["decisions_per_s"], 30 + position * (bar + gap)
        middle, reach = top + bar / 2, median(rates) / most * width
        low, high = (label + edge / most * width for edge in (min(rates), max(rates)))
        facts = f"{one['facts']} fact{'' if one['facts'] == 1 else 's'} each"
        rows += [
            f'<text x="{label - 8}" y="{middle + 4}" text-anchor="end">{one["numbers"]:,} numbers, {facts}</text>',
            f'<rect x="{label}" y="{top}" width="{reach:.1f}" height="{bar}" fill="#4c78a8"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {top + 4}v{bar - 8}M{high:.1f} {top + 4}v{bar - 8}" stroke="#f58518"/>',
            f'<text x="{label + width + 12}" y="{middle + 4}">{median(rates):,.0f}/s</text>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {label + width + 90} {height}" font-family="sans-serif" font-size="13" '
        f'fill="#808080"><text x="0" y="16">Decisions a second of one worker, backlog: median, lowest and highest</text>'
        f"{''.join(rows)}</svg>\n"
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


async def _run(servers: EmbeddedServers, folder: Path, sizes: list[Size], requests: int, repeat: int) -> list[dict[str, Any]]:
    growth = Growth(servers, folder, requests, repeat)
    return [await growth.measure(size, f"growth-{n}") for n, size in enumerate([*sizes, sizes[0]])]


def main() -> int:
    """Run the benchmark. Returns 0 measured, 3 cannot start, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="What a decision costs as the work grows.")
    parser.add_argument("--numbers", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 5_000_000], help="with two facts each")
    parser.add_argument("--facts", type=int, nargs="*", default=[1, 10, 100], help="a number, at 100,000 numbers")
    parser.add_argument("--requests", type=int, default=20_000, help="size of each backlog (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="backlogs of each size (default %(default)s)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw it here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    arguments = parser.parse_args()
    sizes = [Size(numbers, 2) for numbers in arguments.numbers] + [Size(100_000, facts) for facts in arguments.facts]
    measured = on_own_servers(lambda servers, folder: _run(servers, folder, sizes, arguments.requests, arguments.repeat))
    print(table(measured))
    if arguments.svg is not None:
        arguments.svg.write_text(picture(measured))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine(), "versions": versions(), "sizes": measured}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
