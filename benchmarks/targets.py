"""What was wanted of the guard, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

from benchmarks.contenders import ECHO, RINGFENCE, TEXTBOOK
from benchmarks.figures import ratio, values
from benchmarks.memory import kept
from benchmarks.peer import NAME as KAFKA_STREAMS
from benchmarks.side_by_side import SMALL_ECHO

NOT_MEASURED = "not measured yet"
#: The absolute target is that of a machine on which the echo of small records does so many a second.
_REFERENCE_ECHO = 250_000
_WANTED_THERE, _STRETCH_THERE = 35_000, 50_000
#: An open loop may take the target, or so many times the echo's where that is more.
_TIMES_ECHO = 2.5
#: By so much the memory of the last minute may exceed that of the first, to count as flat.
_FLAT = 1.05

Results = Mapping[str, dict[str, Any] | None]


class Target(NamedTuple):
    """A line of the table; ``met`` is None where nothing was measured."""

    figure: str
    target: str
    measured: str
    met: bool | None


def targets(results: Results) -> list[Target]:
    """Every target, with results by part; None where a part was not measured."""
    contenders = results["contenders"]
    return [
        *_rates(contenders),
        _latency(contenders, 1000, 8, 25),
        _latency(contenders, 5000, 25, 80),
        _memory(results["memory"]),
        _import(results["import"], contenders),
        _growth(results["growth"]),
        _two_workers(results["two-workers"]),
    ]


def _rates(result: dict[str, Any] | None) -> list[Target]:
    against = f"decisions a second, backlog, against the {TEXTBOOK.title} agent"
    lines = [
        (against, "at least 20 times; stretch 30"),
        ("the same against an aiokafka echo of the same records", "at least one sixth; stretch a quarter"),
        (
            "the same in absolute terms",
            f"about {_WANTED_THERE:,}/s where an echo of 200-byte records does {_REFERENCE_ECHO:,}/s; stretch {_STRETCH_THERE:,}/s",
        ),
        ("against Kafka Streams, one thread, a toy join in memory", "at least as many"),
        (f"worker CPU per decision, of the {TEXTBOOK.title} agent's", "at most one twentieth"),
    ]
    if result is None:
        return [Target(figure, target, NOT_MEASURED, None) for figure, target in lines]
    ours, small = median(values(result, RINGFENCE.name, "decisions_per_s")), median(values(result, SMALL_ECHO, "decisions_per_s"))
    wanted = _WANTED_THERE * small / _REFERENCE_ECHO
    textbook, echo, streams = (
        ratio(result, RINGFENCE.name, other, "decisions_per_s") for other in (TEXTBOOK.name, ECHO.name, KAFKA_STREAMS)
    )
    cpu = ratio(result, RINGFENCE.name, TEXTBOOK.name, "cpu_s")
    assert textbook is not None
    assert echo is not None
    assert cpu is not None
    found = [
        (f"{textbook:.1f} times", textbook >= 20),
        (f"1/{1 / echo:.1f}", echo >= 1 / 6),
        (f"{ours:,.0f}/s; that echo does {small:,.0f}/s here, which makes it {wanted:,.0f}/s", ours >= wanted),
        (f"left out: {result['kafka_streams_left_out']}", None) if streams is None else (f"{streams:.2f} times", streams >= 1),
        (f"1/{1 / cpu:.1f}", cpu <= 1 / 20),
    ]
    return [Target(*line, *one) for line, one in zip(lines, found, strict=True)]


def _latency(result: dict[str, Any] | None, rate: int, p50_ms: float, p99_ms: float) -> Target:
    figure = f"p50 / p99, open loop, {rate:,} requests a second"
    target = f"at most {p50_ms} / {p99_ms} ms, or {_TIMES_ECHO} times the echo's where that is more"
    names = "p50_ms", "p99_ms"
    if result is None or not values(result, RINGFENCE.name, names[0], f"{rate}"):
        return Target(figure, target, NOT_MEASURED, None)
    ours, echo = ([median(values(result, who.name, name, f"{rate}")) for name in names] for who in (RINGFENCE, ECHO))
    most = [max(wanted, _TIMES_ECHO * theirs) for wanted, theirs in zip((p50_ms, p99_ms), echo, strict=True)]
    measured = (
        f"{ours[0]:.1f} / {ours[1]:.1f} ms; the echo {echo[0]:.1f} / {echo[1]:.1f} ms, so at most {most[0]:.1f} / {most[1]:.1f} ms"
    )
    return Target(figure, target, measured, all(one <= limit for one, limit in zip(ours, most, strict=True)))


def _memory(result: dict[str, Any] | None) -> Target:
    figure = "worker memory under load"
    target = f"at most 250 MB resident, and flat over 10 minutes (last minute at most {_FLAT - 1:.0%} over the first)"
    if result is None:
        return Target(figure, target, NOT_MEASURED, None)
    found, seconds = kept(result["resident_mb"]), result["options"]["memory_seconds"]
    measured = f"at most {found.most:.0f} MB; from {found.first:.0f} to {found.last:.0f} MB in {seconds:,.0f} s"
    return Target(figure, target, measured, found.most <= 250 and found.last <= found.first * _FLAT)


def _import(result: dict[str, Any] | None, contenders: dict[str, Any] | None) -> Target:
    figure, target = "facts from a file (`ringfence import`), published and applied", "at least as fast as decisions are made"
    if result is None:
        return Target(figure, target, NOT_MEASURED, None)
    rates = {
        (topic, name): median(sample[name] for sample in samples)
        for topic, samples in result["samples"].items()
        for name in ("rows_per_s", "applied_per_s")
    }
    measured = "; ".join(
        f"{topic} {rates[topic, 'rows_per_s']:,.0f}/s published, {rates[topic, 'applied_per_s']:,.0f}/s applied"
        for topic in result["samples"]
    )
    if contenders is None:
        return Target(figure, target, f"{measured}; decisions {NOT_MEASURED}", None)
    decisions = median(values(contenders, RINGFENCE.name, "decisions_per_s"))
    return Target(figure, target, f"{measured}; decisions {decisions:,.0f}/s", min(rates.values()) >= decisions)


def _growth(result: dict[str, Any] | None) -> Target:
    figure, target = "cost as numbers grow", "from 10,000 to 5,000,000 at most 20 % down"
    if result is None:
        return Target(figure, target, NOT_MEASURED, None)
    first = result["sizes"][0]
    most = max((size for size in result["sizes"] if size["facts"] == first["facts"]), key=lambda size: int(size["numbers"]))
    share = median(most["decisions_per_s"]) / median(first["decisions_per_s"])
    return Target(figure, target, f"{share - 1:+.0%} from {first['numbers']:,} to {most['numbers']:,}", share >= 0.8)


def _two_workers(result: dict[str, Any] | None) -> Target:
    figure, target = "two workers: CPU per decision, of one worker's", "at most 1.1 times"
    if result is None:
        return Target(figure, target, NOT_MEASURED, None)
    times = ratio(result, "two", "one", "cpu_s")
    assert times is not None
    return Target(figure, target, f"{times:.2f} times", times <= 1.1)
