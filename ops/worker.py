"""``ringfence worker``: wires the guard together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import faust
import structlog
from faust.types import TP

from agents.context import Guard
from agents.latecomers import Latecomers
from agents.register import register_agents
from config.clock import Clock
from config.rulebook import load_rulebook
from config.settings import Settings
from ops.exposition import MetricsServer
from ops.metrics import GuardCollector
from ops.readiness import Readiness
from ops.ready_file import ReadyFile
from ops.service import Ending, spare_the_collector
from ops.tracing import start as start_tracing
from ops.watchdog import Watchdog
from ops.worker_status import StatusReport
from rules.errors import CannotStart, StateError
from rules.events import REQUEST_TOPIC
from rules.reference import Reference
from streams.app import create_app
from streams.barrier import Barrier
from streams.checkpoints import Checkpoints
from streams.clocks import Clocks
from streams.lag import LagWatch
from streams.log_reader import LogReader
from streams.outputs import OutputLog
from streams.ownership import Ownership, request_partitions
from streams.publisher import Publisher
from streams.recovery import Recovery
from streams.redis_client import RedisWatch
from streams.reference_feed import ReferenceFeed
from streams.state import Store
from streams.tasks import Tasks
from streams.timings import Timings
from streams.topics import check_topics

log = structlog.get_logger(__name__)

_CHECK_S = 0.1
_STOP_WITHIN_S = 15.0
_END_WITHIN_S = 30.0
_COUNTS_EVERY_S = 60.0


class Worker:
    """One worker process: connections, Faust app, readiness.

    ``failed`` holds what ended the work, if something did; nothing is skipped, the process ends and whoever supervises it starts anew.
    ``metrics`` answers scrapes while it runs, if that is wanted.
    """

    def __init__(self, settings: Settings, watchdog: Watchdog | None = None) -> None:
        self._settings = settings
        self.failed: BaseException | None = None
        self.metrics: MetricsServer | None = None
        self._watchdog = watchdog
        self._stopping = asyncio.Event()
        self.app: faust.App = create_app(settings)
        self._redis_watch = RedisWatch(settings)
        self.guard = self._wired(settings)
        self.guard.publisher.on_acknowledged = self.guard.note_published
        self._latecomers = Latecomers(self.guard)
        lag = LagWatch(settings, self.guard.barrier, self.guard.feed, self._requests_done)
        self._services = self.guard.publisher, self.guard.barrier, self._reader, lag
        ready_file = os.environ.get("RINGFENCE_READY_FILE")
        self._readiness = Readiness(self.guard, lag, self._redis_watch, ReadyFile(Path(ready_file)) if ready_file else None, self.fail)
        self._status = StatusReport(self.guard, lag, self._readiness)
        self._collector = GuardCollector(self.guard, lag, self._readiness, self._checkpoints)
        self._deliver_to = register_agents(self.app, self.guard, self.fail)
        self.app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        self.app.on_partitions_revoked.connect(self._on_revoked, weak=False)

    @property
    def ready(self) -> bool:
        """Whether the last look found nothing that speaks against it; a worker without partitions is ready to stand in."""
        return self._readiness.ready

    def _wired(self, settings: Settings) -> Guard:
        """Everything that the agents work with, not connected yet."""
        book = load_rulebook(overrides=settings.rulebook_overrides)
        timings = Timings()
        store, publisher = Store(settings), Publisher(settings)
        feed = ReferenceFeed(settings, self._deliver)
        barrier = Barrier(settings, feed)
        self._reader = LogReader(settings, "read_committed")
        outputs = OutputLog(settings, self._reader)
        self._checkpoints = Checkpoints(settings, store, self._reader, lambda: self.guard.ownership.all)
        recovery = Recovery(
            settings,
            store=store,
            barrier=barrier,
            publisher=publisher,
            reader=self._reader,
            outputs=outputs,
            checkpoints=self._checkpoints,
            committed=self._committed,
            now=lambda: self.guard.clock.now(),  # noqa: PLW0108  # tests put another clock there
            valid_s=book.most_valid_s,
        )
        return Guard(
            settings=settings,
            clock=Clock.from_settings(settings),
            book=book,
            store=store,
            publisher=publisher,
            barrier=barrier,
            feed=feed,
            ownership=Ownership(settings, store, recovery, self._rewind, timings, self.fail),
            outputs=outputs,
            reference=Reference(),
            clocks=Clocks(settings.clock_tolerance_s, {"the broker's": publisher.clock, "Redis'": self._redis_watch.clock}),
            timings=timings,
        )

    def fail(self, error: BaseException) -> None:
        """End the work because of an error that must not be passed over."""
        if self.failed is None and not self._stopping.is_set():
            log.error("the worker ends", error=repr(error), exc_info=error)
            self.failed = error
        self._stopping.set()

    def stop(self) -> None:
        """End the work because somebody asked for it."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until :meth:`stop` or a failure.

        Raises:
            CannotStart: a server, a topic or the address for metrics is not usable.
        """
        guard = self.guard
        async with contextlib.AsyncExitStack() as opened:
            if self._settings.metrics is not None:
                self.metrics = await asyncio.to_thread(MetricsServer, self._settings.metrics, [self._collector])
                opened.push_async_callback(asyncio.to_thread, self.metrics.stop)
            tracing = start_tracing(self._settings, "ringfence-worker")
            if tracing.is_on:
                guard.on_answered = tracing.answered
                opened.push_async_callback(asyncio.to_thread, tracing.stop)
            opened.push_async_callback(guard.store.close)
            opened.push_async_callback(self._redis_watch.stop)
            await guard.store.check()
            problems = await check_topics(self._settings)
            if problems:
                raise CannotStart("the topics are not usable:\n  " + "\n  ".join(problems))
            for service in self._services:
                opened.push_async_callback(service.stop)
                await service.start()
            self.app.finalize()
            # Faust makes its consumer on first use; ours has to know whom to tell about commits.
            self.app.consumer.on_committed = self._on_committed
            opened.push_async_callback(self._stop_app)
            await self.app.start()
            if self._watchdog is not None:
                self._watchdog.watch("consumer", self.app.consumer.thread_loop)
                opened.callback(self._watchdog.forget, "consumer")
            opened.push_async_callback(guard.feed.stop)
            await guard.feed.start()
            opened.push_async_callback(self._checkpoints.stop)
            await self._checkpoints.start()
            opened.push_async_callback(self._status.stop)
            tasks = Tasks(self.fail)
            opened.callback(tasks.cancel)
            for beside in (
                self._watch(), self._readiness.run(), self._status.run(), self._latecomers.run(), guard.ownership.watch(),
            ):  # fmt: skip
                tasks.start(beside)
            await self._stopping.wait()
            if self._watchdog is not None:
                # A client that hangs while it is stopped would keep the partitions from others: a storm saw one stay for 30 s.
                self._watchdog.end_within(_END_WITHIN_S)
            await self._readiness.stop()

    async def _stop_app(self) -> None:
        """Let Faust leave its group; a worker that cannot must not linger, for its heartbeats would keep its partitions from others."""
        await self.guard.ownership.stop()
        try:
            async with asyncio.timeout(_STOP_WITHIN_S):
                await self.app.stop()
        except TimeoutError:
            log.error("Faust did not stop in time; leaving without it", within_s=_STOP_WITHIN_S)  # noqa: TRY400  # no trace to show

    async def _deliver(self, topic: str, records: list[Any], next_offset: int) -> None:
        await self._deliver_to[topic](records, next_offset)

    async def _committed(self, partition: int) -> int | None:
        committed: int | None = await self.app.consumer.committed(TP(self._settings.topic(REQUEST_TOPIC), partition))
        return committed

    async def _rewind(self, tp: Any, offset: int) -> None:  # Faust's TP
        await self.app.consumer.rewind(tp, offset)

    async def _on_assigned(self, _app: faust.App, assigned: set[Any], **_options: object) -> None:
        partitions = request_partitions(self._settings, assigned)
        log.info("partitions assigned", partitions=partitions, generation=self.app.consumer_generation_id)
        self.guard.ownership.assigned(partitions, self.app.consumer_generation_id)
        self._readiness.assigned = True

    async def _on_revoked(self, _app: faust.App, _revoked: set[Any], **_options: object) -> None:
        self._readiness.assigned = False
        self.guard.ownership.revoked()

    def _requests_done(self, partition: int) -> int:
        return int(self.app.consumer.done(TP(self._settings.topic(REQUEST_TOPIC), partition)))

    async def _on_committed(self, offsets: dict[Any, int]) -> None:
        requests = self._settings.topic(REQUEST_TOPIC)
        committed = {tp.partition: offset for tp, offset in offsets.items() if tp.topic == requests}
        ours = {number: self.guard.ownership.get(number) for number in committed}
        outputs = {number: one.outputs for number, one in ours.items() if one is not None and one.ready and not one.unexplained}
        try:
            await self.guard.store.trim_journals(committed)
            await self.guard.store.note_outputs(outputs)
        except StateError as error:
            log.warning("the journal is not trimmed", partitions=sorted(committed), reason=str(error))

    async def _watch(self) -> None:
        """Say once when the worker is ready, notice what died, and report the counts now and then."""
        announced = False
        since_counts = 0.0
        while True:
            await asyncio.sleep(_CHECK_S)
            for service in (self.app, self.app.consumer):
                if service.crashed:
                    self.fail(service.crash_reason or RuntimeError("Faust crashed"))
            for failure in (self.guard.feed.failure, self._checkpoints.failure):
                if failure is not None:
                    self.fail(failure)
            if self.ready and not announced:
                announced = True
                sys.stdout.write(f"ready partitions={len(self.guard.ownership.all)}\n")
                sys.stdout.flush()
            since_counts += _CHECK_S
            if since_counts >= _COUNTS_EVERY_S:
                since_counts = 0.0
                log.info("counts", **self.guard.counts, **dict(self.guard.timings.lately()))


def run_worker(settings: Settings) -> int:
    """Run a worker until SIGTERM (returns 0), Ctrl-C (130) or a failure (1).

    Raises:
        CannotStart: a server or a topic is not usable.
    """
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    watchdog = Watchdog(settings.watchdog_s)
    worker = Worker(settings, watchdog)
    ending = Ending(worker.stop)
    spare_the_collector()
    watchdog.watch("worker", asyncio.get_running_loop())
    watchdog.start()
    try:
        await worker.run()
    finally:
        watchdog.stop()
    return 1 if worker.failed is not None else ending.code
