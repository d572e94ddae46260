"""``python -m benchmarks.gateway``: what a single request over HTTP costs, beside the same requests through Kafka.

One worker, one gateway, one open loop after the other at the same rate: requests that a client puts on Kafka and whose decisions it
reads there, then requests that it posts. CPU is the gateway's own.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import aiohttp

from benchmarks.client import Client
from benchmarks.contenders import GATEWAY
from benchmarks.loop import Sample, over_http, over_kafka
from benchmarks.measure import percentile, warm_up
from benchmarks.servers import Place, on_own_servers, say
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.waiting import until
from streams.embedded import LOOPBACK, free_port

_SECRET = "a-secret-of-the-benchmark"  # noqa: S105  # of a gateway that lives for a minute
_GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One repeat: milliseconds from when a request was due, through Kafka and over HTTP, and the gateway's CPU a request over HTTP."""

    kafka_p50_ms: float
    kafka_p99_ms: float
    http_p50_ms: float
    http_p99_ms: float
    cpu_ms: float


def main() -> int:
    """Run the benchmark. Returns 0 measured, 3 cannot start, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description="A single request over HTTP beside Kafka.")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each loop (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="(default %(default)s)")
    arguments = parser.parse_args()
    measured = on_own_servers(lambda place: _measure(place, arguments.rate, arguments.seconds, arguments.repeat))
    print(json.dumps(measured, indent=2))
    return 0


async def _measure(place: Place, rate: float, seconds: float, repeat: int) -> dict[str, Any]:
    stage = Stage(place, Sizes(requests=20_000), 20_000)
    await stage.load()
    address = f"{LOOPBACK}:{free_port()}"
    keys = f"bench dial,operate {_SECRET}"
    settings = stage.settings.model_validate({**stage.settings.model_dump(), "gateway": address, "gateway_rate": 0, "api_keys": keys})
    gc.collect()
    gc.freeze()
    compared: list[Compared] = []
    with stage.worker() as worker, stage.started(GATEWAY, settings) as gateway:
        for program in (worker, gateway):
            await until(program.says_ready, "worker and gateway are ready", program.check)
        async with Client(stage.settings) as client, aiohttp.ClientSession(headers={"Authorization": f"Bearer {_SECRET}"}) as session:
            await warm_up(worker, client, stage.workload, "warm")
            url = f"http://{address}/v1/call-requests"
            await over_http(session, url, stage.workload.open_loop("warm-http", round(rate)), rate, _GRACE_S)
            for number in range(repeat):
                requests = [list(stage.workload.open_loop(f"{number}-{way}", round(rate * seconds))) for way in ("kafka", "http")]
                through_kafka = await over_kafka(client, requests[0], rate, _GRACE_S)
                before = gateway.cpu_s()
                posted = await over_http(session, url, requests[1], rate, _GRACE_S)
                cpu_ms = (gateway.cpu_s() - before) / posted.sent * 1000
                compared.append(_compared(through_kafka, posted, cpu_ms))
                say(f"r{number}: {compared[-1]}")
    medians = {name: round(median(getattr(one, name) for one in compared), 2) for name in Compared.__dataclass_fields__}
    return {"rate": rate, "samples": [asdict(one) for one in compared], "medians": medians}


def _compared(through_kafka: Sample, posted: Sample, cpu_ms: float) -> Compared:
    for sample in (through_kafka, posted):
        if sample.missing:
            raise RuntimeError(f"{sample.missing} of {sample.sent} requests got no decision: {dict(sample.failed)}")
    kafka, http = through_kafka.latencies_ms, posted.latencies_ms
    return Compared(
        kafka_p50_ms=round(percentile(kafka, 0.5), 1),
        kafka_p99_ms=round(percentile(kafka, 0.99), 1),
        http_p50_ms=round(percentile(http, 0.5), 1),
        http_p99_ms=round(percentile(http, 0.99), 1),
        cpu_ms=round(cpu_ms, 3),
    )


if __name__ == "__main__":
    sys.exit(main())
