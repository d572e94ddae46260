"""A whole storm: servers, proxies, workers and load up; faults; calm; the audit; the report; everything down again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from chaos.fleet import Fleet
from chaos.inject import Injector
from chaos.lag import Lag
from chaos.load import Orders, Summary, send_all
from chaos.proxy import Proxy
from chaos.recovery import recoveries
from chaos.report import as_markdown, faults_as_json, per_kind, shortcomings, told_by
from chaos.schedule import Fault, plan
from chaos.survey import survey
from chaos.traffic import Traffic
from config.settings import Settings
from rules.errors import CannotStart
from rules.instants import SECOND, parse_instant
from streams.embedded import EmbeddedKafka, EmbeddedRedis
from streams.processes import end, spawn
from streams.topics import ensure_topics

#: The guard's clock starts on a Monday at 10:00 in Amsterdam, so that hours of storm stay within calling hours.
CLOCK_START = "2026-11-23T09:00:00Z"
PARTITIONS = 8
WORKERS = ("worker-1", "worker-2")

_ROOT = Path(__file__).parent.parent
_MINUTES_MIN = 2.0
_FIRST_FAULT_S = 5.0
_READY_WITHIN_S = 120.0
_PROGRESS_EVERY_S = 5.0
_LOAD_ENDS_WITHIN_S = 90.0
_ANSWERED_WITHIN_S = 120.0
_FACTS_STAND_STILL_S = 10.0
_AUDIT_WITHIN_S = 900.0
_FINDINGS_SHOWN = "200"
_STOP_GRACE_S = 10.0
_UNANSWERED_SHOWN = 100

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What ``python -m chaos`` was asked for. ``rate`` in requests a second; ``calm``: the load alone, without a fault."""

    seed: int
    minutes: float
    rate: float
    out: Path
    calm: bool = False

    @property
    def schedule(self) -> list[Fault]:
        """The faults. They end some time before the load does."""
        if self.calm:
            return []
        calm_s = 30.0 if self.minutes >= 5 else 20.0
        return plan(self.seed, self.minutes * 60 - _FIRST_FAULT_S - calm_s)

    @property
    def again(self) -> str:
        """The command that does the same again."""
        return f"python -m chaos --seed {self.seed} --minutes {self.minutes:g} --rate {self.rate:g}{' --calm' * self.calm}"


class Storm:
    """One run. Whatever ends it, every process that it started has ended when ``run`` returns or raises.

    Raises:
        ValueError: an option makes no sense; nothing has been started or written.
    """

    def __init__(self, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        if options.minutes < _MINUTES_MIN and not options.calm:
            raise ValueError(f"--minutes: want {_MINUTES_MIN:g} or more, so that every kind of fault has its time")
        self._schedule = options.schedule
        self._traffic = Traffic(options.seed, options.rate, PARTITIONS)
        self._clock_offset_s = parse_instant(CLOCK_START) / SECOND - time.time()
        self._histories = options.out / "histories.jsonl"
        # Kept only for a closer look at what an audit found: a gigabyte after 15 minutes.
        self._kafka_folder = options.out / "kafka"
        self._up = contextlib.ExitStack()

    def run(self) -> dict[str, Any]:
        """Everything.

        Returns: the report, which has been written to the folder as well.

        Raises:
            CannotStart: a server or a worker does not come up, at the start or after a fault.
        """
        keep_log = False
        try:
            with self._up:
                report = asyncio.run(self._run())
            keep_log = report["audit_exit_code"] != 0
        finally:
            if not keep_log:
                shutil.rmtree(self._kafka_folder, ignore_errors=True)
        return report

    async def _run(self) -> dict[str, Any]:
        options = self._options
        kafka, redis_server, kafka_proxy, redis_proxy = await asyncio.to_thread(self._start_servers)
        direct = _settings(kafka.address, redis_server.url)
        proxied = direct if options.calm else _settings(f"127.0.0.1:{kafka_proxy.port}", f"redis://127.0.0.1:{redis_proxy.port}/0")
        await ensure_topics(direct)
        self._histories.write_bytes(b"")
        sent = await send_all(direct, self._histories, self._traffic.before())
        self._say(f"{sent:,} records on file; starting {len(WORKERS)} workers")
        fleet = Fleet(self._environment(proxied), options.out)
        self._up.callback(fleet.stop, _STOP_GRACE_S)
        fleet.start(*WORKERS)
        await fleet.until_ready(_READY_WITHIN_S)
        injector = Injector(fleet, kafka, redis_server, kafka_proxy, redis_proxy, options.out / "faults.jsonl")
        async with Lag(direct) as lag:
            load = await self._weather(fleet, injector, lag, direct)
            requests_open, facts_open = await self._until_answered(lag)
        survey_of = await survey(direct, self._histories, load)
        self._say("auditing")
        audit_code, audit = await self._audit(direct)
        injected = sorted(injector.done, key=lambda fault: fault.started_at)
        costs = recoveries(survey_of.waits, [fault.started_at for fault in injected])
        return self._write(
            {
                "options": {"seed": options.seed, "minutes": options.minutes, "rate": options.rate, "calm": options.calm},
                "faults": faults_as_json(injected, costs),
                "totals": {
                    "records_acknowledged": sum(load.acknowledged.values()),
                    "records_unacknowledged": load.unacknowledged,
                    **survey_of.figures(),
                    "requests_uncommitted_at_the_end": requests_open,
                    "facts_uncommitted_at_the_end": facts_open,
                    "worker_starts": fleet.starts,
                    "worker_starts_refused": fleet.refused_starts,
                    "worker_crashes": len(fleet.crashes),
                    "load_late_max_s": round(load.late_max_s, 2),
                },
                "unanswered": survey_of.unanswered[:_UNANSWERED_SHOWN],
                "deaths": [asdict(death) for death in fleet.deaths],
                "audit_exit_code": audit_code,
                "audit": audit,
                "again": options.again,
                "clock_offset_s": self._clock_offset_s,
            }
        )

    def _start_servers(self) -> tuple[EmbeddedKafka, EmbeddedRedis, Proxy, Proxy]:
        kafka_proxy, redis_proxy = self._up.enter_context(Proxy()), self._up.enter_context(Proxy())
        redis_server, kafka = EmbeddedRedis(), EmbeddedKafka(self._kafka_folder, proxied_by=kafka_proxy.port)
        for server in (redis_server, kafka):
            self._up.callback(server.stop, 0)
            server.start(self._say)
        assert kafka.proxied_port is not None
        kafka_proxy.target, redis_proxy.target = kafka.proxied_port, redis_server.port
        return kafka, redis_server, kafka_proxy, redis_proxy

    async def _weather(self, fleet: Fleet, injector: Injector, lag: Lag, direct: Settings) -> Summary:
        """The load, and the faults while it lasts. Returns what the load client sent."""
        options = self._options
        seconds = options.minutes * 60
        self._say(f"{len(self._schedule)} faults within {seconds:.0f} s; everything is written to {options.out}")
        summary = options.out / "load.json"
        orders = Orders(
            direct.model_dump(mode="json", include={"kafka", "topic_prefix", "partitions", "embedded"}),
            options.seed,
            options.rate,
            seconds,
            self._clock_offset_s,
            str(self._histories),
            str(summary),
        )
        begin = time.monotonic()
        process = self._start_load(orders)
        progress = asyncio.create_task(self._progress(begin, fleet, injector, lag))
        try:
            await asyncio.sleep(_FIRST_FAULT_S)
            await injector.run(self._schedule)
            if not await _ended(process, begin + seconds + _LOAD_ENDS_WITHIN_S - time.monotonic()):
                process.terminate()  # it writes its summary all the same
                await _ended(process, _LOAD_ENDS_WITHIN_S)
        finally:
            progress.cancel()
        if process.returncode != 0:
            raise CannotStart(f"the load client ended with code {process.returncode}; see {options.out / 'load.log'}")
        return msgspec.json.decode(summary.read_bytes(), type=Summary)

    def _start_load(self, orders: Orders) -> subprocess.Popen[bytes]:
        file = self._options.out / "orders.json"
        file.write_bytes(msgspec.json.encode(orders))
        with (self._options.out / "load.log").open("wb") as log:
            process = spawn([sys.executable, "-m", "chaos.load", str(file)], stdout=log, stderr=subprocess.STDOUT, cwd=_ROOT)
        self._up.callback(end, process, 0)
        return process

    async def _progress(self, begin: float, fleet: Fleet, injector: Injector, lag: Lag) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            found = await lag.look()
            waiting = "broker away" if found is None else f"{found[0]:,} requests wait"
            faults = f"faults {len(injector.done)} of {len(self._schedule)}, now {', '.join(injector.under_way) or 'none'}"
            workers = f"workers {'ready' if fleet.ready() else 'not ready'}, {fleet.starts} starts, {len(fleet.crashes)} crashes"
            self._say(f"{time.monotonic() - begin:4.0f} s  {waiting}; {faults}; {workers}")

    async def _until_answered(self, lag: Lag) -> tuple[int, int]:
        """Wait until the guard has dealt with every request, and with every fact or, for a while, with no further one.

        Returns: how many requests and facts were open when patience ended; -1 each where the broker did not say.
        """
        deadline, patience_until, said, facts = time.monotonic() + _ANSWERED_WITHIN_S, 0.0, 0.0, -1
        while True:
            now, found = time.monotonic(), await lag.look()
            if found is not None and found[1] != facts:
                facts, patience_until = found[1], now + _FACTS_STAND_STILL_S
            if found == (0, 0) or now > deadline or (found is not None and not found[0] and now > patience_until):
                return (-1, -1) if found is None else found
            if now > said + _PROGRESS_EVERY_S:
                said = now
                self._say("calm; " + ("broker away" if found is None else f"{found[0]:,} requests and {found[1]:,} facts wait"))
            await asyncio.sleep(0.5)

    async def _audit(self, direct: Settings) -> tuple[int, dict[str, Any]]:
        """Run ``ringfence audit`` on the logs.

        Returns: its exit code, -9 if it had to be killed, and what it told; nothing where it could not be carried out.
        """
        out = self._options.out
        command = [sys.executable, "-m", "ops.cli", "audit", "--json", "--show", _FINDINGS_SHOWN, "--histories", str(self._histories)]
        with (out / "audit.json").open("wb") as answer, (out / "audit.log").open("wb") as log:
            process = spawn(command, stdout=answer, stderr=log, cwd=out, env=self._environment(direct))
        self._up.callback(end, process, 0)
        await _ended(process, _AUDIT_WITHIN_S)
        return end(process, 0), told_by((out / "audit.json").read_bytes())

    def _environment(self, settings: Settings) -> dict[str, str]:
        """What a worker or the auditor is told; nothing that is meant for another guard reaches them."""
        return {name: value for name, value in os.environ.items() if not name.startswith("RINGFENCE_")} | {
            "RINGFENCE_KAFKA": settings.kafka,
            "RINGFENCE_REDIS": settings.redis.get_secret_value(),
            "RINGFENCE_PARTITIONS": str(settings.partitions),
            "RINGFENCE_EMBEDDED": "true",
            "RINGFENCE_CLOCK_OFFSET_S": f"{self._clock_offset_s:.6f}",
            "PYTHONUNBUFFERED": "1",
            # Of our own: an installed ringfence must not be tried in place of this one.
            "PYTHONPATH": str(_ROOT),
        }

    def _write(self, report: dict[str, Any]) -> dict[str, Any]:
        report["per_kind"] = per_kind(report["faults"])
        report["shortcomings"] = shortcomings(report)
        out = self._options.out
        (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        (out / "report.md").write_text(as_markdown(report))
        return report


def _settings(kafka: str, redis_url: str) -> Settings:
    return Settings.model_validate({"kafka": kafka, "redis": redis_url, "partitions": PARTITIONS, "embedded": True})


async def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    """Wait for a process. Returns whether it ended in time."""
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110  # nothing in this process knows when it ends
        await asyncio.sleep(0.2)
    return process.poll() is not None
