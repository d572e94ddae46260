"""``python -m benchmarks [PART ...]``: measure on a Kafka and a Redis of their own, print, write, and leave nothing running."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import tables
from benchmarks.contenders import RINGFENCE, TEXTBOOK
from benchmarks.figures import ratio
from benchmarks.parts import PARTS
from benchmarks.report import header
from benchmarks.servers import on_own_servers, say
from benchmarks.sizes import QUICK, USUAL, Sizes

_QUICK_RESULTS = Path("build") / "bench"


def main() -> int:
    """Measure the parts that are asked for, each on servers of its own.

    Returns:
        0 measured; 1 a part failed, the text-book agent and the guard decided differently, or ``--most-cpu`` was exceeded; 3 cannot
        start; 130 Ctrl-C or SIGTERM.
    """
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    sizes = _sizes(arguments)
    folder: Path = arguments.results or (_QUICK_RESULTS if arguments.quick else tables.RESULTS)
    parts = arguments.parts or list(PARTS)
    failed = [part for part in parts if not _measured(part, sizes, folder, arguments.most_cpu)]
    if failed:
        say(f"failed: {', '.join(failed)}")
        return 1
    if set(parts) == PARTS.keys():
        results = tables.read(folder)
        print(tables.section("targets", results))
        if folder.resolve() == tables.RESULTS:
            tables.write(results)
            say(f"written into {tables.PAGE.relative_to(tables.ROOT)}")
    return 0


def _measured(part: str, sizes: Sizes, folder: Path, most_cpu: float) -> bool:
    """Measure a part, write down and print what was found. Returns whether nothing is wrong with it."""
    say(f"--- {part}")
    above = header(sizes)
    try:
        result = above | on_own_servers(lambda place: PARTS[part](place, sizes))
    except Exception:  # noqa: BLE001  # whatever a part fails of, the others are still measured
        say(f"{part} failed:\n{traceback.format_exc()}")
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(tables.section(part, {part: result}))
    return part != "contenders" or _sound(result, most_cpu)


def _sound(result: dict[str, Any], most_cpu: float) -> bool:
    share = ratio(result, RINGFENCE.name, TEXTBOOK.name, "cpu_s")
    if share is not None and share > most_cpu:
        say(f"a decision takes {share:.2f} times the CPU of the text-book agent's; at most {most_cpu:.2f} were wanted")
        return False
    return not result["decisions_different"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Decisions a second, CPU, latency and memory of workers; without a PART, all of it."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help=f"small sizes of everything, for a try; results go to {_QUICK_RESULTS}")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where PART.json goes (default benchmarks/results)")
    parser.add_argument(
        "--most-cpu", type=float, default=math.inf, metavar="SHARE", help="fail if a decision takes more of the text-book agent's"
    )
    sizes = parser.add_argument_group("sizes")

    def size(name: str, kind: Any, text: str, nargs: str | None = None) -> None:
        usual = getattr(USUAL, name)
        shown = " ".join(f"{one:g}" for one in usual) if isinstance(usual, tuple) else f"{usual:g}"
        sizes.add_argument(f"--{name.replace('_', '-')}", type=kind, nargs=nargs, metavar="N", help=f"{text} (default {shown})")

    size("seed", int, "of everything that is generated")
    size("repeat", _count, "measure each so many times")
    size("numbers", _count, "numbers with facts on file")
    size("fewer_numbers", _count, "the same, of the parts two-workers and memory")
    size("requests", _count, "size of a backlog")
    size("textbook_requests", _count, "the text-book agent's share of it")
    size("rates", float, "requests a second of the open loops", nargs="+")
    size("seconds", float, "length of an open loop")
    sizes.add_argument("--no-peer", dest="peer", action="store_false", default=None, help="leave Kafka Streams out")
    size("memory_rate", float, "requests a second of the part memory")
    size("memory_seconds", float, "its length")
    size("memory_every_s", float, "seconds between two looks")
    size("rows", _count, "rows of each imported file")
    size("growth_numbers", _count, "sizes of the part growth, with two facts a number", nargs="+")
    size("growth_facts", _count, f"facts a number, at {USUAL.growth_facts_numbers:,} numbers", nargs="*")
    size("growth_requests", _count, "size of its backlogs")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    return arguments


def _sizes(arguments: argparse.Namespace) -> Sizes:
    given = {name: value for name in Sizes.__dataclass_fields__ if (value := getattr(arguments, name, None)) is not None}
    changed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(QUICK if arguments.quick else USUAL, **changed)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("want at least 1")
    return count


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
