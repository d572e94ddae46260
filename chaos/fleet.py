"""The workers of the storm: processes that are started again when they die, as a supervisor would."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.up import EXIT_CANNOT_START
from rules.errors import CannotStart
from streams.processes import end, spawn

_LOOK_EVERY_S = 0.1
_RESTART_AFTER_S = 1.0
_LEAVE_WITHIN_S = 30.0
_READY_AGE_S = 1.0


@dataclass(frozen=True, slots=True)
class Death:
    """A worker process that ended. ``planned`` says that a fault or the end of the storm did it; ``at`` in unix seconds."""

    worker: str
    at: float
    code: int
    planned: bool


@dataclass(slots=True, eq=False)
class _Slot:
    """A place for a worker: the process in it, and whether one is wanted there."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    wanted: bool = True
    doomed: bool = False
    paused: bool = False


@dataclass(slots=True)
class Fleet:
    """Workers by name, watched over by a thread.

    Attributes:
        environment: of every worker.
        folder: gets ``NAME.log`` for each worker, kept over its restarts.
        deaths: every process that ended, in order.
        starts: how many processes were started.
    """

    environment: Mapping[str, str]
    folder: Path
    deaths: list[Death] = field(default_factory=list)
    starts: int = 0
    _slots: dict[str, _Slot] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None

    def start(self, *names: str) -> None:
        """Start workers and watch over them; returns at once."""
        for name in names:
            self.join(name)
        self._watcher = threading.Thread(target=self._watch, name="chaos-fleet", daemon=True)
        self._watcher.start()

    def stop(self, grace_s: float) -> None:
        """End every worker: SIGTERM, SIGKILL after ``grace_s`` seconds."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        processes = [slot.process for slot in self._slots.values() if slot.process is not None]
        for process in processes:
            process.send_signal(signal.SIGCONT)
            if grace_s > 0:
                process.terminate()
        deadline = time.monotonic() + grace_s
        for process in processes:
            end(process, max(0.0, deadline - time.monotonic()))

    @property
    def names(self) -> list[str]:
        """The workers that are wanted."""
        with self._lock:
            return [slot.name for slot in self._slots.values() if slot.wanted]

    @property
    def crashes(self) -> list[Death]:
        """Deaths that nobody planned, those apart that refused to start without a server: a supervisor tries again."""
        return [death for death in self.deaths if not death.planned and death.code != EXIT_CANNOT_START]

    @property
    def refused_starts(self) -> int:
        """How often a worker ended because Kafka or Redis did not answer when it started."""
        return sum(death.code == EXIT_CANNOT_START for death in self.deaths)

    def ready(self) -> bool:
        """Whether every wanted worker runs and has said within the last second that it is ready."""
        with self._lock:
            return all(self._is_ready(slot) for slot in self._slots.values() if slot.wanted)

    async def becomes_ready(self, name: str, within_s: float) -> bool:
        """Wait for one worker. Returns whether it was ready in time."""
        deadline = time.monotonic() + within_s
        while not self._is_ready(self._slots[name]):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_EVERY_S)
        return True

    async def until_ready(self, within_s: float) -> None:
        """Wait until every worker is ready.

        Raises:
            CannotStart: one is not, with the end of its log.
        """
        deadline = time.monotonic() + within_s
        while not self.ready():
            if time.monotonic() > deadline:
                tails = [f"{name}:\n{self._tail(name)}" for name in self.names]
                raise CannotStart(f"not every worker was ready within {within_s:.0f} s\n" + "\n".join(tails))
            await asyncio.sleep(_LOOK_EVERY_S)

    def kill(self, name: str) -> None:
        """SIGKILL; the worker is started again a second later."""
        with self._lock:
            slot = self._slots[name]
            if slot.process is not None:
                slot.doomed = True
                slot.process.kill()

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(name, signal.SIGSTOP, paused=True)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._signal(name, signal.SIGCONT, paused=False)

    def leave(self, name: str) -> int | None:
        """SIGTERM, and wait for the end; the worker stays away until it joins again.

        Returns: its exit code, -9 if it had to be killed after 30 s; None if there was none.
        """
        with self._lock:
            slot = self._slots[name]
            slot.wanted, process = False, slot.process
            slot.process = None
        if process is None:
            return None
        code = end(process, _LEAVE_WITHIN_S)
        # An orderly leave ends with 0; one that was still starting dies of the signal. Anything else is the worker's own doing.
        self.deaths.append(Death(name, time.time(), code, planned=code in {0, -signal.SIGTERM}))
        return code

    def join(self, name: str) -> None:
        """Start a worker of that name; returns at once."""
        with self._lock:
            slot = self._slots.setdefault(name, _Slot(name))
            slot.wanted = True
            if slot.process is None:
                self._launch(slot)

    def _signal(self, name: str, number: signal.Signals, *, paused: bool) -> None:
        with self._lock:
            slot = self._slots[name]
            slot.paused = paused
            if slot.process is not None:
                slot.process.send_signal(number)

    def steady(self) -> list[str]:
        """The workers that run and are not paused, by name; whom the next fault may hit."""
        with self._lock:
            return [slot.name for slot in self._slots.values() if slot.wanted and slot.process is not None and not slot.paused]

    def _launch(self, slot: _Slot) -> None:
        ready_file = self.folder / f"{slot.name}.ready"
        environment = {**self.environment, "RINGFENCE_READY_FILE": str(ready_file)}
        with (self.folder / f"{slot.name}.log").open("ab") as log:
            log.write(f"--- started at {time.time():.3f}\n".encode())
            log.flush()
            slot.process = spawn(
                [sys.executable, "-m", "ops.cli", "worker"], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )
        slot.started_at, slot.doomed, slot.paused = time.time(), False, False
        self.starts += 1

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_EVERY_S):
            with self._lock:
                for slot in self._slots.values():
                    self._look_after(slot)

    def _look_after(self, slot: _Slot) -> None:
        if slot.process is not None and (code := slot.process.poll()) is not None:
            end(slot.process, 0)
            self.deaths.append(Death(slot.name, time.time(), code, planned=slot.doomed))
            slot.process, slot.start_at = None, time.monotonic() + _RESTART_AFTER_S
        if slot.process is None and slot.wanted and time.monotonic() >= slot.start_at:
            self._launch(slot)

    def _is_ready(self, slot: _Slot) -> bool:
        try:
            said_at = (self.folder / f"{slot.name}.ready").stat().st_mtime
        except FileNotFoundError:
            return False
        return slot.process is not None and said_at > slot.started_at and time.time() - said_at < _READY_AGE_S

    def _tail(self, name: str) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-10:])
