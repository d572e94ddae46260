"""What an audit tells: a table of counts and violations, the offending records, or all of it as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.audit.findings import COUNTS, KINDS, Finding, Tally

_PIPE_COLUMNS = 400


def as_json(tally: Tally, show: int) -> dict[str, object]:
    """The whole report; ``findings`` holds the first ``show``."""
    return {
        "clean": tally.clean,
        "counts": {name: tally.counts[name] for name in COUNTS},
        "violations": {kind: tally.violations[kind] for kind in KINDS},
        "approved_share": approved_share(tally),
        "recall_latency_ms": recall_latency_ms(tally),
        "findings": [finding.as_json() for finding in shown(tally, show)],
    }


def approved_share(tally: Tally) -> float | None:
    """Approvals among the decisions; None without decisions."""
    decisions = tally.counts["decisions"]
    return round(tally.counts["approvals"] / decisions, 4) if decisions else None


def recall_latency_ms(tally: Tally) -> dict[str, int] | None:
    """Milliseconds from a stop, or from the approval where that came later, to its recall; None without recalls."""
    ordered = sorted(tally.latencies_ms)
    if not ordered:
        return None
    return {"count": len(ordered), "p50": _quantile(ordered, 0.5), "p99": _quantile(ordered, 0.99), "max": ordered[-1]}


def shown(tally: Tally, show: int) -> list[Finding]:
    """The first findings, sorted by kind and place."""
    order = list(KINDS)
    ordered = sorted(tally.findings, key=lambda one: (order.index(one.kind), one.topic, one.partition, one.offset))
    return ordered[:show]


def print_report(tally: Tally, show: int) -> None:
    """Print counts, violations and the first findings."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_COLUMNS)
    with console.capture() as capture:
        console.print(_counts(tally))
        console.print()
        console.print(_violations(tally))
        for finding in shown(tally, show):
            console.print(_line(finding), soft_wrap=True)
        hidden = tally.violations.total() - len(shown(tally, show))
        if hidden > 0:
            console.print(Text(f"and {hidden:,} more (--show)", style="dim"))
    # Tables fill their columns with blanks; a pipe needs none.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def _counts(tally: Tally) -> Table:
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    for name, meaning in COUNTS.items():
        table.add_row(name, f"{tally.counts[name]:,}", _remark(name, meaning, tally))
    latency = recall_latency_ms(tally)
    if latency is not None:
        table.add_row("recall latency", f"{latency['p50']:,} ms", f"p50; p99 {latency['p99']:,} ms, max {latency['max']:,} ms")
    return table


def _remark(name: str, meaning: str, tally: Tally) -> str:
    share = approved_share(tally)
    return f"{meaning}: {share:.1%}" if name == "approvals" and share is not None else meaning


def _violations(tally: Tally) -> Table | Text:
    if tally.clean:
        return Text("no violations", style="green")
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="red")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    for kind, meaning in KINDS.items():
        if tally.violations[kind]:
            table.add_row(kind, f"{tally.violations[kind]:,}", meaning)
    return table


def _line(finding: Finding) -> Text:
    place = f"{finding.topic}-{finding.partition}@{finding.offset}"
    who = " ".join(part for part in (finding.request_id, finding.number) if part)
    return Text.assemble(("\n" + finding.kind, "red"), f"  {place}  {who}\n  ", (finding.detail, "dim"))


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
