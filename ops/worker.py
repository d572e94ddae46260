"""``ringfence worker``: wires the guard together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
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
from rules.errors import CannotStart, StateError
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC
from rules.reference import Reference
from streams.app import create_app
from streams.barrier import Barrier
from streams.checkpoints import Checkpoints
from streams.log_reader import LogReader
from streams.outputs import OutputLog
from streams.ownership import Ownership, request_partitions
from streams.publisher import Publisher
from streams.recovery import Recovery
from streams.reference_feed import ReferenceFeed
from streams.state import Store
from streams.tasks import Tasks
from streams.topics import check_topics

log = structlog.get_logger(__name__)

_CHECK_S = 0.1
_STOP_WITHIN_S = 15.0
_COUNTS_EVERY_S = 60.0


class Worker:
    """One worker process: connections, Faust app, readiness.

    ``failed`` holds what ended the work, if something did; nothing is skipped, the process ends and whoever supervises it starts anew.
    ``ready`` says whether every partition is taken over and everything acknowledged so far is applied.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.failed: BaseException | None = None
        self.ready = False
        self._assigned = False
        self._caught_up = False
        self._stopping = asyncio.Event()
        self.app: faust.App = create_app(settings)
        self.guard = self._wired(settings)
        self.guard.publisher.on_acknowledged = self.guard.note_published
        self._latecomers = Latecomers(self.guard)
        self._deliver_to = register_agents(self.app, self.guard, self.fail)
        self.app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        self.app.on_partitions_revoked.connect(self._on_revoked, weak=False)

    def _wired(self, settings: Settings) -> Guard:
        """Everything that the agents work with, not connected yet."""
        clock = Clock.from_settings(settings)
        book = load_rulebook(overrides=settings.rulebook_overrides)
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
            clock=clock,
            book=book,
            store=store,
            publisher=publisher,
            barrier=barrier,
            feed=feed,
            ownership=Ownership(settings, store, recovery, self._rewind, self.fail),
            outputs=outputs,
            reference=Reference(),
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
            CannotStart: a server or a topic is not usable.
        """
        guard = self.guard
        async with contextlib.AsyncExitStack() as opened:
            opened.push_async_callback(guard.store.close)
            await guard.store.check()
            problems = await check_topics(self._settings)
            if problems:
                raise CannotStart("the topics are not usable:\n  " + "\n  ".join(problems))
            for service in (guard.publisher, guard.barrier, self._reader):
                opened.push_async_callback(service.stop)
                await service.start()
            self.app.finalize()
            # Faust makes its consumer on first use; ours has to know whom to tell about commits.
            self.app.consumer.on_committed = self._on_committed
            opened.push_async_callback(self._stop_app)
            await self.app.start()
            opened.push_async_callback(guard.feed.stop)
            await guard.feed.start()
            opened.push_async_callback(self._checkpoints.stop)
            await self._checkpoints.start()
            beside = Tasks(self.fail)
            opened.callback(beside.cancel)
            beside.start(self._watch())
            beside.start(self._latecomers.run())
            beside.start(guard.ownership.watch())
            await self._stopping.wait()

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
        self._assigned, self._caught_up = True, False

    async def _on_revoked(self, _app: faust.App, _revoked: set[Any], **_options: object) -> None:
        self.guard.ownership.revoked()

    async def _on_committed(self, offsets: dict[Any, int]) -> None:
        requests = self._settings.topic(REQUEST_TOPIC)
        for tp, offset in offsets.items():
            if tp.topic == requests:
                partition = self.guard.ownership.get(tp.partition)
                try:
                    await self.guard.store.trim_journal(tp.partition, offset)
                    if partition is not None and partition.ready and not partition.unexplained:
                        await self.guard.store.note_outputs(tp.partition, partition.outputs)
                except StateError as error:
                    log.warning("the journal is not trimmed", partition=tp.partition, reason=str(error))

    async def _watch(self) -> None:
        """Say once when the worker is ready, keep the readiness file fresh, notice what died, and report the counts now and then."""
        announced = False
        ready_file = os.environ.get("RINGFENCE_READY_FILE")
        since_counts = 0.0
        while True:
            await asyncio.sleep(_CHECK_S)
            for service in (self.app, self.app.consumer):
                if service.crashed:
                    self.fail(service.crash_reason or RuntimeError("Faust crashed"))
            for failure in (self.guard.feed.failure, self._checkpoints.failure):
                if failure is not None:
                    self.fail(failure)
            self.ready = await self._ready()
            if self.ready and not announced:
                announced = True
                sys.stdout.write(f"ready partitions={len(self.guard.ownership.all)}\n")
                sys.stdout.flush()
            if ready_file and self.ready:
                await asyncio.to_thread(Path(ready_file).touch)
            since_counts += _CHECK_S
            if since_counts >= _COUNTS_EVERY_S:
                since_counts = 0.0
                log.info("counts", **self.guard.counts)

    async def _ready(self) -> bool:
        """Whether every partition is taken over and, once since they were assigned, all that was acknowledged has been applied.

        A worker that got no partition, because there are more workers than partitions, is ready to stand in.
        """
        guard = self.guard
        partitions = guard.ownership.all
        if not self._assigned or not all(partition.ready for partition in partitions):
            return False
        if self._caught_up:
            return True
        try:
            ends = await guard.barrier.ends([partition.number for partition in partitions])
        except StateError:
            return False
        lag = sum(ends.of(topic, one.number) - one.applied(topic) for one in partitions for topic in FACT_MODELS)
        lag += sum(ends.of(topic, 0) - guard.feed.applied(topic) for topic in REFERENCE_MODELS)
        self._caught_up = lag <= 0
        return self._caught_up


def _spare_the_collector() -> None:
    """Let the garbage collector look less often, and not at what lives as long as the worker.

    A decision makes hundreds of short-lived objects and no cycles; with Python's defaults the collector takes 8 to 20 % of a worker's
    CPU (four pairs of runs, backlog of 30,000 requests, Python 3.11, 2 cores).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_worker(settings: Settings) -> int:
    """Run a worker until SIGTERM (returns 0), Ctrl-C (130) or a failure (1).

    Raises:
        CannotStart: a server or a topic is not usable.
    """
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    worker = Worker(settings)
    code = 0

    def stop(exit_code: int) -> None:
        nonlocal code
        code = exit_code
        worker.stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop, 0)
    loop.add_signal_handler(signal.SIGINT, stop, 130)
    _spare_the_collector()
    await worker.run()
    return 1 if worker.failed is not None else code
