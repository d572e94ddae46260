"""``ringfence demo``: the whole guard on embedded servers, fed with a made-up day, with a live view of what it decides.

Order: servers and workers (ops.up), reference data and facts, a few probes that show the guard has taken them in, then the day's
events at a steady rate until the time is over, the last answers, and a summary.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from config.clock import Clock
from config.settings import Settings
from ops.client_log import client_silenced
from ops.day import DAY_START, Day
from ops.live import LiveReader
from ops.load import OpenLoop, SentTimes, producer_for, publish
from ops.snapshot import Snapshot
from ops.statistics import Seen, Statistics
from ops.up import EXIT_CANNOT_START, EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE, Stack, UpOptions, stop_signals
from ops.view import Screen, summary_lines
from rules.errors import CannotStart
from streams.embedded import StartCancelled

EXIT_MISSING = 1
#: How long the last answers are waited for, in seconds; less after Ctrl-C.
GRACE_S = 15.0
_GRACE_INTERRUPTED_S = 2.0
#: Enough requests to reach every partition, and how long the guard may take to have taken all facts in.
_PROBES = 24
_PROBES_WITHIN_S = 60.0
_LOOK_S = 0.05

ToldCode = Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What ``ringfence demo`` was asked for.

    Attributes:
        seconds: how long the load runs; starting and stopping come on top.
        forever: until Ctrl-C instead.
        rate: call requests a second.
        workers: worker processes.
        seed: of the made-up day.
        kafka_port: 0 takes any free one.
        redis_port: 0 takes any free one.
    """

    seconds: float = 60.0
    forever: bool = False
    rate: float = 300.0
    workers: int = 1
    seed: int = 1
    kafka_port: int = 0
    redis_port: int = 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    snapshot: Snapshot
    sent: SentTimes
    unpublished: int
    failed: str | None


def run_demo(options: DemoOptions) -> int:
    """Run the demo; call it in the main thread. The view and the summary go to stdout, progress and errors to stderr.

    Returns:
        0 every request got exactly one decision (or stopped by SIGTERM), 1 a decision is missing or was given twice, 2 an option
        makes no sense, 3 cannot start or a part died for good, 130 Ctrl-C. Everything has been stopped and removed by then.
    """
    problem = _problem(options)
    if problem is not None:
        _say(problem)
        return EXIT_USAGE
    up = UpOptions(
        kafka_port=options.kafka_port,
        redis_port=options.redis_port,
        workers=options.workers,
        gateway_port=0,
        clock_start=DAY_START,
        quiet=True,
    )
    stack = Stack(up)
    with stop_signals() as told, client_silenced():
        try:
            stack.start(_say, lambda: told.code is not None)
            _say(f"dashboard: {_dashboard(stack)}")
            screen = Screen("ringfence demo")
            outcome = asyncio.run(_Demo(options, stack, screen, lambda: told.code).run())
        except StartCancelled:
            return EXIT_STOPPED if told.code is None else told.code
        except CannotStart as error:
            _say(f"cannot start: {error}")
            return EXIT_CANNOT_START
        except BrokenPipeError:
            # Whoever read our output has gone (`| head`); Python would complain once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_STOPPED
        finally:
            stack.stop()
        return _report(outcome, screen, told.code)


def _dashboard(stack: Stack) -> str:
    """A link that signs in at once. What stands behind # is not sent, and stands in no log."""
    return stack.gateway if stack.gateway_key is None else f"{stack.gateway}/#key={stack.gateway_key}"


def _problem(options: DemoOptions) -> str | None:
    if not options.rate > 0:
        return "--rate: want requests a second, more than 0"
    if not options.forever and not options.seconds > 0:
        return "--seconds: want more than 0"
    if options.workers < 1:
        return "--workers: want 1 or more"
    return None


def _report(outcome: _Outcome, screen: Screen, told: int | None) -> int:
    sent, twice = outcome.sent, outcome.snapshot.contradictions
    if outcome.unpublished:
        _say(f"{outcome.unpublished} records were not acknowledged by the broker")
    if sent.missing or twice:
        verdict = f"{sent.missing:,} of {sent.sent:,} requests got no decision, {twice:,} got two different ones"
    else:
        verdict = f"each of the {sent.sent:,} requests got exactly one decision"
    with suppress(BrokenPipeError):
        screen.close_with(["", *summary_lines(outcome.snapshot), "", verdict])
    if outcome.failed is not None:
        _say(f"stopped: {outcome.failed}")
        return EXIT_CANNOT_START
    if told == EXIT_INTERRUPTED:
        return told
    return EXIT_MISSING if sent.missing or twice else EXIT_STOPPED


class _Demo:
    """One run on a started stack."""

    def __init__(self, options: DemoOptions, stack: Stack, screen: Screen, told: ToldCode) -> None:
        self._options = options
        self._stack = stack
        self._screen = screen
        self._told = told
        # The stack's own addresses, whatever RINGFENCE_KAFKA says; TLS and SASL of a guard in production have no say either.
        self._settings = Settings(kafka=stack.kafka, kafka_security="PLAINTEXT", embedded=True)
        self._clock = Clock(round((stack.clock_offset_s or 0.0) * 1_000_000))
        self._day = Day(seed=options.seed)
        self._sent = SentTimes()
        self._probed: dict[str, bool] = {}
        self._reader = LiveReader(self._settings, Statistics(time.monotonic()), self._sent, self._decided)

    async def run(self) -> _Outcome:
        """Load, probe, play the day, wait for the last answers."""
        producer = producer_for(self._settings)
        reading: asyncio.Task[None] | None = None
        try:
            await producer.start()
            await self._reader.start()
            reading = asyncio.create_task(self._reader.run())
            await self._take_in(producer)
            return await self._play(producer)
        finally:
            if reading is not None:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
            await self._reader.stop()
            await producer.stop()

    @property
    def _over(self) -> bool:
        return self._told() is not None or self._stack.failed is not None

    async def _take_in(self, producer: AIOKafkaProducer) -> None:
        """Publish what is known before the day, and wait until the guard answers from it."""
        started = time.monotonic()
        count = await publish(producer, self._settings, self._day.reference())
        count += await publish(producer, self._settings, self._day.facts())
        _say(f"published {count:,} facts about {self._day.numbers:,} numbers in {time.monotonic() - started:.1f} s")
        deadline = started + _PROBES_WITHIN_S
        while not self._over and time.monotonic() < deadline:
            self._probed.clear()
            probes = list(self._day.probes(self._clock.now(), _PROBES))
            await publish(producer, self._settings, probes)
            await self._answers(len(probes), within_s=5.0)
            if len(self._probed) == len(probes) and all(self._probed.values()):
                return
        if not self._over:
            raise CannotStart(f"the guard had not taken all facts in within {_PROBES_WITHIN_S:.0f} s")

    async def _answers(self, count: int, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and not self._over:
            if len(self._probed) >= count:
                return
            await asyncio.sleep(_LOOK_S)

    def _decided(self, seen: Seen) -> None:
        if seen.request_id.startswith("probe-"):
            self._probed[seen.request_id] = not any(code.startswith("S_STATE") for code in seen.reasons)
        elif seen.kind == "decision" and seen.decision == "approved":
            self._day.note_approved(seen)

    async def _play(self, producer: AIOKafkaProducer) -> _Outcome:
        options = self._options
        started = time.monotonic()
        self._reader.statistics = Statistics(started, self._day.names)
        events = self._day.live(random.Random(options.seed), self._clock.now)
        load = OpenLoop(producer, self._settings, events, rate=options.rate, sent=self._sent)
        sending = asyncio.create_task(load.run())
        with self._screen as screen:
            while not self._over and (options.forever or time.monotonic() - started < options.seconds) and not sending.done():
                if screen.due:
                    screen.show(self._snapshot(), self._state(time.monotonic() - started))
                await asyncio.sleep(_LOOK_S)
            await _ended(sending)
            stopped = time.monotonic()
            # A rate beyond what the guard can do leaves a queue; its length says how long the rest may take.
            while len(self._sent) and self._stack.failed is None:
                grace = GRACE_S if self._told() is None else _GRACE_INTERRUPTED_S
                if time.monotonic() - stopped > grace:
                    break
                if screen.due:
                    screen.show(self._snapshot(), f"the last {len(self._sent):,}")
                await asyncio.sleep(_LOOK_S)
            snapshot = self._reader.statistics.snapshot(time.monotonic())
        return _Outcome(snapshot, self._sent, load.failed, self._stack.failed)

    def _snapshot(self) -> Snapshot:
        return self._reader.statistics.snapshot(time.monotonic())

    def _state(self, seconds: float) -> str:
        return _minutes(seconds) + ("" if self._options.forever else f" of {_minutes(self._options.seconds)}")


async def _ended(sending: asyncio.Task[None]) -> None:
    """Stop the load; an error of its own is raised here."""
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
