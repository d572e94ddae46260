"""Runs an audit: partition by partition, in one process or several."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from config.clock import Clock
from config.rulebook import load_rulebook
from config.settings import Settings
from ops.audit.check import check_partition
from ops.audit.findings import Tally
from ops.audit.histories import Histories
from ops.audit.moves import Homes, Moved
from ops.audit.partition import PartitionLog
from ops.audit.reading import Plan, make_plan, read_partition, read_places, read_references
from ops.audit.references import ReferenceLog
from ops.audit.terms import Offsets, Terms
from rules.errors import CannotStart
from rules.events import REQUEST_TOPIC
from rules.instants import SECOND

EXIT_INTERRUPTED = 130
_LOOK_S = 0.2
#: Findings of each kind that a partition keeps, so that the first ones can be shown in order.
_KEPT = 1000

#: What comes of a partition: its tally, and the records that belong in others.
Judged = tuple[Tally, list[Moved]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    ``since`` and ``histories`` are files to read, ``ends`` one to write; ``jobs`` worker processes, 0: as many as there are processors.
    """

    bound_s: float = 150.0
    tolerance_ms: int = 100
    jobs: int = 0
    show: int = 20
    since: Path | None = None
    ends: Path | None = None
    histories: Path | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process needs to judge partitions."""

    settings: Settings
    options: Options
    plan: Plan
    since: Offsets
    references: ReferenceLog

    def terms(self) -> Terms:
        """What the audit goes by."""
        settings, options = self.settings, self.options
        return Terms(
            book=load_rulebook(overrides=settings.rulebook_overrides),
            partitions=settings.partitions,
            now_ms=self.plan.now_ms,
            memory=settings.request_memory_s * SECOND,
            bound_ms=int(options.bound_s * 1000),
            tolerance_ms=options.tolerance_ms,
            clock_offset=Clock.from_settings(settings).offset,
            since=self.since,
        )

    def run(self, partition: int, terms: Terms, advance: Callable[[int], None]) -> Judged:
        """Read and judge one partition."""
        histories_file = self.options.histories
        histories = Histories.read(histories_file, partition) if histories_file is not None else Histories()
        log = PartitionLog(partition, terms, self.plan.of(partition), self.plan.start((REQUEST_TOPIC, partition)))
        asyncio.run(read_partition(self.settings, self.plan, partition, log.add, advance))
        tally = Tally(max(self.options.show, _KEPT))
        check_partition(log, self.references, histories, terms, tally, advance)
        moved = [one for one in (*log.misplaced.values(), *log.forwarded) if terms.judged(one.topic, partition, one.offset)]
        return tally, moved


def run_audit(settings: Settings, options: Options) -> Tally:
    """Audit a guard. It needs no loop running in its thread.

    Raises:
        CannotStart: no broker, topics that are not this guard's, a file that cannot be read, or a clock that cannot be known.
    """
    if settings.clock_start is not None and settings.clock_offset_s is None:
        raise CannotStart("RINGFENCE_CLOCK_START counts from the start of each worker: set RINGFENCE_CLOCK_OFFSET_S to the guard's")
    since = _read_offsets(options.since) if options.since is not None else {}
    plan = asyncio.run(make_plan(settings, since))
    references = ReferenceLog(plan.references())
    tally = Tally(max(options.show, _KEPT))
    with _progress(plan.size()) as advance_to:
        asyncio.run(read_references(settings, plan, references.add))
        job = Job(settings, options, plan, since, references)
        misplaced = list[Moved]()
        for part, moved in _run_all(job, range(settings.partitions), advance_to):
            tally.add(part)
            misplaced += moved
        if misplaced:
            # They belong in partitions that may have been read before they were found.
            homes = Homes(misplaced)
            asyncio.run(read_places(settings, plan, homes.places, homes.add))
            homes.check(job.terms(), tally)
    if options.ends is not None:
        _write_ends(options.ends, plan, tally)
    return tally


def _run_all(job: Job, partitions: range, advance_to: Callable[[int], None]) -> Iterator[Judged]:
    jobs = min(job.options.jobs or os.cpu_count() or 1, len(partitions))
    if jobs == 1:
        terms, done = job.terms(), 0

        def advance(records: int) -> None:
            nonlocal done
            done += records
            advance_to(done)

        for partition in partitions:
            yield job.run(partition, terms, advance)
        return
    # Spawned, not forked: a fork would copy the progress bar's thread in the middle of whatever it holds.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(job, counter)) as pool:
        running: set[Future[Judged]] = {pool.submit(_work, partition) for partition in partitions}
        try:
            while running:
                done_now, running = wait(running, timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                advance_to(counter.value)
                for future in done_now:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


_worker: tuple[Job, Terms, Any] | None = None  # of a worker process: its job, and the counter that all share


def _start_worker(job: Job, counter: Any) -> None:  # multiprocessing's synchronized value
    global _worker  # noqa: PLW0603  # a worker process is handed its job once, not with every partition
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = job, job.terms(), counter


def _end_with_parent() -> None:
    """End when whoever asked is gone, however it went: nobody would read the answer, and the pool's queue never ends by itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # we were spawned
    parent.join()
    os._exit(EXIT_INTERRUPTED)


def _work(partition: int) -> Judged:
    assert _worker is not None  # the pool's initializer set it
    job, terms, counter = _worker

    def advance(records: int) -> None:
        with counter.get_lock():
            counter.value += records

    return job.run(partition, terms, advance)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error if that is a terminal. Yields what is told how many records were dealt with in all."""
    console = Console(stderr=True)
    columns = (TextColumn("audit"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        # Every record is read, and most are judged: both count.
        task = progress.add_task("", total=2 * total)
        yield lambda done: progress.update(task, completed=done)


def _read_offsets(path: Path) -> Offsets:
    """Read ``{topic: {partition: offset}}``.

    Raises:
        CannotStart: the file is something else.
    """
    try:
        given = json.loads(path.read_bytes())
        return {topic: {int(partition): int(offset) for partition, offset in places.items()} for topic, places in given.items()}
    except OSError as error:
        raise CannotStart(f"--from: {error.strerror}") from None
    except (ValueError, AttributeError, TypeError):
        raise CannotStart('--from: want JSON like {"call-requests": {"0": 1200}}, as --ends writes it') from None


def _write_ends(path: Path, plan: Plan, tally: Tally) -> None:
    ends: dict[str, dict[str, int]] = {}
    for (topic, partition), (_, end) in sorted(plan.bounds.items()):
        # What could not be judged for good is for the next audit; stops have their offsets noted, but facts are read whole anyway.
        ends.setdefault(topic, {})[str(partition)] = tally.pending_from.get((topic, partition), end)
    try:
        path.write_text(json.dumps(ends, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotStart(f"--ends: {error.strerror}") from None
