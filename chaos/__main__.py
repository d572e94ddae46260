"""``python -m chaos``: a storm on servers of its own, its audit and its report; leaves nothing running."""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from chaos.report import as_markdown
from chaos.storm import Options, Storm
from rules.errors import CannotStart

_EXAMPLE = """example:
  python -m chaos --seed 3 --minutes 2

The folder of --out gets report.md, report.json, faults.jsonl, histories.jsonl, audit.json and the logs of workers and load.
The same seed, minutes and rate give the same schedule of faults and the same order of records.
"""


def main() -> int:
    """Run a storm.

    Returns:
        0 weathered; 1 not, the reasons are printed; 2 an option makes no sense; 3 cannot start; 130 Ctrl-C or SIGTERM.
    """
    arguments = _arguments()
    out = arguments.out or Path(tempfile.gettempdir(), f"ringfence-chaos-{secrets.token_hex(4)}")
    options = Options(arguments.seed, arguments.minutes, arguments.rate, out.absolute(), arguments.calm)
    # Also where SIGINT was ignored, as in a background job of a shell: asyncio ends its tasks in order by it alone.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    # A broker that is away is what was asked for: the client's word on it would bury the progress.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        storm = Storm(options, _say)
    except ValueError as error:
        _say(str(error))
        return 2
    try:
        out.mkdir(parents=True, exist_ok=True)
        report = storm.run()
    except CannotStart as error:
        _say(f"cannot go on: {error}\nagain: {options.again}")
        return 3
    except KeyboardInterrupt:
        _say(f"interrupted; everything is stopped, and {out} has what was written so far")
        return 130
    print(as_markdown(report))
    print(f"written to {out}")
    return 1 if report["shortcomings"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Workers under load while they are killed, paused and cut off, and Kafka and Redis die; then the audit.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of faults and load (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long the load lasts (default %(default)g, at least 2)")
    parser.add_argument("--rate", type=float, default=1000.0, help="call requests a second (default %(default)g)")
    parser.add_argument("--calm", action="store_true", help="no fault and no proxy: what answers and recalls take in fair weather")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where everything is written (default: a new temporary folder)")
    return parser.parse_args()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
