"""``python -m benchmarks.tables``: writes the results into docs/performance.md, between its markers, and draws the pictures beside it.

Figures in the documentation come from the result files and from nowhere else; a test holds the two against each other.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import ECHO, RINGFENCE, TEXTBOOK
from benchmarks.figures import ratio, spread, values
from benchmarks.memory import kept
from benchmarks.parts import PARTS
from benchmarks.peer import NAME as KAFKA_STREAMS
from benchmarks.pictures import bars, line
from benchmarks.side_by_side import SMALL_ECHO
from benchmarks.targets import NOT_MEASURED, Results, targets

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"

_SECTION = re.compile(r"(?<=<!-- measured:)([a-z-]+)( -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
_TITLES = {
    RINGFENCE.name: RINGFENCE.title,
    TEXTBOOK.name: TEXTBOOK.title,
    ECHO.name: ECHO.title,
    SMALL_ECHO: f"{ECHO.title}, 200 bytes",
    KAFKA_STREAMS: "Kafka Streams",
}


def read(folder: Path) -> Results:
    """The results by part; None where there is no file."""
    paths = {part: folder / f"{part}.json" for part in PARTS}
    return {part: json.loads(path.read_text()) if path.exists() else None for part, path in paths.items()}


def section(name: str, results: Results) -> str:
    """The generated text of a section: a part's, or ``targets``."""
    if name == "targets":
        met = {True: "yes", False: "**no**", None: "-"}
        return _table(("figure", "target", "measured", "met"), ((*one[:3], met[one.met]) for one in targets(results)))
    result = results[name]
    if result is None:
        return f"{NOT_MEASURED.capitalize()}.\n"
    return f"{_where(result)}\n\n{_SECTIONS[name](result)}"


def page(text: str, results: Results) -> str:
    """A page with all of its sections written anew."""
    return _SECTION.sub(lambda found: f"{found[1]}{found[2]}{section(found[1], results)}", text)


def pictures(results: Results) -> Mapping[str, str]:
    """The pictures by file name, those of parts that were measured."""
    growth, memory = results["growth"], results["memory"]
    drawn = {}
    if growth is not None:
        drawn["growth.svg"] = bars(growth["sizes"])
    if memory is not None:
        drawn["memory.svg"] = line(memory["resident_mb"])
    return drawn


def write(results: Results) -> None:
    """Write page and pictures."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    for name, picture in pictures(results).items():
        (PAGE.parent / "images" / name).write_text(picture, encoding="utf-8")


# --- sections -------------------------------------------------------------------------------------------------------------------


def _where(result: dict[str, Any]) -> str:
    on, what, seed = result["machine"], result["versions"], result["options"]["seed"]
    names = {"python": "Python", "kafka": "Kafka", "java of the peer": "Java of the peer"}
    told = ", ".join(f"{names.get(name, name)} {version}" for name, version in what.items())
    machine = f"{on['cores']} cores ({on['cpu']}), {on['memory']}, {on['system']}, load before {on['load_before']}"
    return f"{result['measured_at'][:10]}: {machine}; {told}; seed {seed}."


def _contenders(result: dict[str, Any]) -> str:
    options = result["options"]
    who = [name for name in _TITLES if name in result["samples"]]
    rows = [
        ("decisions a second, backlog", "decisions_per_s", ",.0f", None),
        ("CPU s per 100,000, backlog", "cpu_s", ".2f", None),
        *(
            row
            for rate in (f"{rate:g}" for rate in options["rates"])
            for row in (
                (f"CPU s per 100,000, {int(rate):,}/s", "cpu_s", ".2f", rate),
                (f"p50 ms, {int(rate):,}/s", "p50_ms", ",.1f", rate),
                (f"p99 ms, {int(rate):,}/s", "p99_ms", ",.1f", rate),
            )
        ),
        ("MB resident, after it all", "resident_mb", ",.0f", None),
    ]
    cells = ((title, *(spread(values(result, name, figure, rate), form) for name in who)) for title, figure, form, rate in rows)
    others = [name for name in who if name not in {RINGFENCE.name, SMALL_ECHO}]
    against = (
        (title, *(_times(ratio(result, RINGFENCE.name, other, figure)) for other in others))
        for title, figure, *_ in rows
        if title in {rows[0][0], rows[1][0]}
    )
    compared, different = result["decisions_compared"], result["decisions_different"]
    same = f"all {compared:,} are the same" if not different else f"**{different:,} of {compared:,} differ**"
    left_out = result["kafka_streams_left_out"]
    return (
        f"{options['requests']:,} requests about {options['numbers']:,} numbers, {result['approved_share']:.0%} approved; "
        f"{min(options['textbook_requests'], options['requests']):,} of them for the text-book agent; "
        f"open loops of {options['seconds']:g} s; median (least - most) of {options['repeat']}.\n\n"
        + _table(("", *(_TITLES[name] for name in who)), cells)
        + "\nringfence beside the others, median of the ratios within a repeat:\n\n"
        + _table(("", *(_TITLES[name] for name in others)), against)
        + f"\nDecisions compared with the text-book agent's: {same}."
        + (f" Kafka Streams was left out: {left_out}." if left_out else "")
        + "\n"
    )


def _two_workers(result: dict[str, Any]) -> str:
    options = result["options"]
    rows = [
        (
            name,
            spread(values(result, name, "decisions_per_s"), ",.0f"),
            spread(values(result, name, "cpu_s"), ".2f"),
            "; ".join(" + ".join(f"{one:.2f}" for one in each) for each in (sample["cpu_s_each"] for sample in samples)),
        )
        for name, samples in result["samples"].items()
    ]
    return (
        f"Backlogs of {options['requests']:,} requests about {options['fewer_numbers']:,} numbers; "
        f"median (least - most) of {options['repeat']}.\n\n"
        + _table(("workers", "decisions a second", "CPU s per 100,000, together", "CPU s of each, by repeat"), rows)
    )


def _memory(result: dict[str, Any]) -> str:
    options, found, latency = result["options"], kept(result["resident_mb"]), result["latency"]
    return (
        f"{options['memory_rate']:,.0f} requests a second for {options['memory_seconds']:,.0f} s, "
        f"{options['fewer_numbers']:,} numbers; p50 {latency['p50_ms']:.1f} ms, p99 {latency['p99_ms']:.1f} ms.\n\n"
        + _table(
            ("MB resident", ""),
            [
                ("second tenth of the run, median", f"{found.first:.0f}"),
                ("last tenth, median", f"{found.last:.0f}"),
                ("most", f"{found.most:.0f}"),
            ],
        )
        + "\n![Resident memory over time](images/memory.svg)\n"
    )


def _import(result: dict[str, Any]) -> str:
    kinds = {"objections": "objections, CSV", "consents": "consents, JSON lines"}
    rows = [
        (kinds[topic], *(spread([sample[name] for sample in samples], ",.0f") for name in ("rows_per_s", "applied_per_s")))
        for topic, samples in result["samples"].items()
    ]
    options = result["options"]
    return f"Files of {options['rows']:,} rows; median (least - most) of {options['repeat']}.\n\n" + _table(
        ("", "rows published a second", "applied a second, by one worker"), rows
    )


def _growth(result: dict[str, Any]) -> str:
    first, options = median(result["sizes"][0]["decisions_per_s"]), result["options"]
    rows = [
        (
            f"{one['numbers']:,}",
            str(one["facts"]),
            spread(one["decisions_per_s"], ",.0f"),
            f"{median(one['decisions_per_s']) / first:.0%}",
            spread(one["cpu_s_per_100000"], ".1f"),
        )
        for one in result["sizes"]
    ]
    return (
        f"Backlogs of {options['growth_requests']:,} requests; median (least - most) of {options['repeat']}.\n\n"
        + _table(("numbers", "facts a number", "decisions a second", "of the first", "CPU s per 100,000"), rows)
        + "\n![Decisions a second by size](images/growth.svg)\n"
    )


_SECTIONS = {
    "contenders": _contenders,
    "two-workers": _two_workers,
    "memory": _memory,
    "import": _import,
    "growth": _growth,
}


def _times(times: float | None) -> str:
    return "-" if times is None else f"{times:.3g} times"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    above = list(headings)
    lines = [above, ["---"] * len(above), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("|  |", "| |")


def main() -> int:
    """Write everything. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description="Write the results into docs/performance.md.")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where they stand (default %(default)s)")
    write(read(parser.parse_args().results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
