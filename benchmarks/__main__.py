"""``python -m benchmarks``: start a Kafka and a Redis of its own, measure, print, and leave nothing running."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from pathlib import Path
from types import FrameType

from benchmarks.report import as_json, machine, ratio, show
from benchmarks.run import Bench, Options
from benchmarks.servers import on_own_servers, say


def main() -> int:
    """Run the benchmark.

    Returns:
        0 measured; 1 the text-book agent and the guard decided differently, or ``--most-cpu`` was exceeded; 3 cannot start; 130 Ctrl-C
        or SIGTERM.
    """
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    options = Options(arguments.requests, arguments.numbers, arguments.seed, arguments.repeat, arguments.rate, arguments.seconds)
    where = machine()
    results = on_own_servers(lambda servers, _: Bench(servers.kafka.address, servers.redis.url, "bench-", options, say).run())
    show(results, where)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(as_json(results, where), indent=2) + "\n")
    share = ratio(results, "cpu_s_backlog")
    if share > arguments.most_cpu:
        say(f"a decision takes {share:.2f} times the CPU of the text-book agent's; at most {arguments.most_cpu:.2f} were wanted")
        return 1
    return 1 if results.different else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Decisions a second, CPU and latency of one worker.")
    usual = Options()
    parser.add_argument("--requests", type=_count, default=usual.requests, help="size of the backlog (default %(default)s)")
    parser.add_argument("--numbers", type=_count, default=usual.numbers, help="numbers with facts on file (default %(default)s)")
    parser.add_argument("--seed", type=int, default=usual.seed, help="of the generated day (default %(default)s)")
    parser.add_argument("--repeat", type=_count, default=usual.repeat, help="measure each so many times (default %(default)s)")
    parser.add_argument("--rate", type=float, default=usual.rate, help="requests a second of the open loop (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="length of the open loop (default %(default)s)")
    parser.add_argument(
        "--most-cpu", type=float, default=math.inf, metavar="SHARE", help="fail if a decision takes more of the text-book agent's CPU"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    return parser.parse_args()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("want at least 1")
    return count


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
