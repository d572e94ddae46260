"""``python -m tests.load``: send call requests at steady rates and print how long their decisions took."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import FrameType

from benchmarks.loop import Sample
from benchmarks.servers import say
from config.settings import Settings
from ops.client_log import client_silenced
from ops.options import EXIT_CANNOT_START, EXIT_FINDINGS, EXIT_INTERRUPTED
from rules.errors import CannotStart
from tests.load.targets import Loop, Sizing, gateway, own_workers, running_guard
from tests.servers import Servers

_DESCRIPTION = """
Sends call requests at a steady rate, whether or not anybody keeps up, and prints how long decisions took: from when a request was due
until its decision was read. Without an address it takes the servers that the tests take: RINGFENCE_TEST_KAFKA and RINGFENCE_TEST_REDIS,
else containers, else embedded ones. On them it starts workers of its own, with topics and made-up facts that are removed in the end.
--workers 0 loads a guard that runs already, by the RINGFENCE_ variables, and --http a gateway. These get made-up call requests and no
facts. Do that to a set-up for tests: the requests and their decisions stay in its topics.
"""


def main(words: list[str] | None = None) -> int:
    """Load what is asked for.

    Returns:
        0 every request got a decision; 1 one got none, or a worker failed; 2 usage; 3 cannot start; 130 Ctrl-C or SIGTERM.
    """
    options = _options(words)
    servers, samples = Servers(), list[Sample]()
    try:
        with client_silenced():
            asyncio.run(_measure(_target(options, servers), options, samples))
    except KeyboardInterrupt:
        say("interrupted; what was started is stopped")
        return EXIT_INTERRUPTED
    except CannotStart as error:
        say(f"cannot start: {error}")
        return EXIT_CANNOT_START
    except (RuntimeError, TimeoutError) as error:
        say(f"failed: {error}")
        return EXIT_FINDINGS
    finally:
        servers.close()
        _show(samples, as_json=options.json)
    missing = sum(sample.missing for sample in samples)
    if missing:
        say(f"{missing:,} of {sum(sample.sent for sample in samples):,} requests got no decision")
    return EXIT_FINDINGS if missing else 0


async def _measure(target: AbstractAsyncContextManager[Loop], options: argparse.Namespace, samples: list[Sample]) -> None:
    async with target as loop:
        for rate in options.rate:
            say(f"{rate:g} requests a second for {options.seconds:g} s")
            samples.append(await loop(rate, options.seconds))


def _target(options: argparse.Namespace, servers: Servers) -> AbstractAsyncContextManager[Loop]:
    sizing = Sizing(options.numbers, options.seed, options.grace)
    if options.http:
        return gateway(options.http, options.key, sizing)
    if not options.workers:
        given = {"kafka": options.kafka, "topic_prefix": options.topic_prefix, "partitions": options.partitions}
        return running_guard(Settings(**{name: value for name, value in given.items() if value is not None}), sizing)
    kafka = options.kafka or servers.address("Kafka")
    redis = options.redis or servers.address("Redis")
    say("servers: " + (", ".join(f"{name}: {where}" for name, where in servers.used.items()) or "as given"))
    return own_workers(kafka, redis, options.workers, sizing)


def _show(samples: list[Sample], *, as_json: bool) -> None:
    rows = [sample.as_json() for sample in samples]
    if as_json:
        print(json.dumps({"rates": rows}, indent=2))
        return
    names = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
    print(f"{'rate/s':>8} {'sent':>9} {'missing':>9} " + " ".join(f"{name.replace('_', ' '):>9}" for name in names))
    for row in rows:
        figures = " ".join(f"{'-' if row[name] is None else format(row[name], ',.1f'):>9}" for name in names)
        print(f"{row['rate']:>8g} {row['sent']:>9,} {row['missing']:>9,} {figures}")
        for what, count in row["failed"].items():
            print(f"{count:>18,} without a decision: {what}")


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=_DESCRIPTION)
    parser.add_argument(
        "--rate", type=_positive, nargs="+", default=[100.0, 500.0, 1000.0], metavar="N", help="requests a second, each"
    )
    parser.add_argument("--seconds", type=_positive, default=10.0, metavar="S", help="how long each rate lasts (default 10)")
    parser.add_argument(
        "--workers", type=int, choices=range(9), default=1, metavar="N", help="to start, up to 8; 0: a guard that runs already"
    )
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a Kafka without password and TLS; with --workers 0 the guard's")
    parser.add_argument("--redis", metavar="URL", help="a Redis for workers of our own")
    parser.add_argument("--topic-prefix", metavar="P", help="of the guard that runs (default RINGFENCE_TOPIC_PREFIX)")
    parser.add_argument("--partitions", type=int, metavar="N", help="of the guard that runs (default RINGFENCE_PARTITIONS)")
    parser.add_argument("--http", metavar="URL", help="a gateway: http://127.0.0.1:8080")
    parser.add_argument(
        "--key", metavar="KEY", help="of the gateway, scope dial; @FILE reads it from a file, where no list of processes shows it"
    )
    parser.add_argument("--numbers", type=_count, default=5_000, metavar="N", help="people that the load is about (default 5000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of these people (default 1)")
    parser.add_argument("--grace", type=_positive, default=15.0, metavar="S", help="wait so long for the last decisions (default 15)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(words)
    if options.http and not options.key:
        parser.error("--http wants --key")
    if options.http and (options.kafka or options.redis):
        parser.error("--http loads a gateway alone: leave --kafka and --redis out")
    if options.redis and not options.kafka:
        parser.error("--redis wants --kafka")
    if options.kafka and options.workers and not options.redis:
        parser.error("--kafka wants --redis, or --workers 0")
    if options.key and options.key.startswith("@"):
        options.key = Path(options.key[1:]).read_text(encoding="utf-8").strip()
    return options


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("want more than 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("want at least 1")
    return value


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
