"""The watchdog: ends a worker one of whose event loops makes no progress, so that its partitions find another owner.

A thread puts a callback on each loop and counts its own ticks until the callback has run. It counts ticks and not time, so that a
process that was stopped (SIGSTOP, a frozen virtual machine) and goes on is given as many ticks as ever to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import threading

import structlog

log = structlog.get_logger(__name__)

EXIT_HUNG = 70
_TICKS = 10
_LAST_WORDS_S = 2.0
_STDERR = 2


class Watchdog:
    """Watches event loops from a thread of its own, from :meth:`start` to the end of the process.

    Args:
        within_s: how long a loop may take to run a callback; 0 watches nothing.
    """

    def __init__(self, within_s: float) -> None:
        self._tick_s = within_s / _TICKS
        self._unanswered: dict[str, int] = {}
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ringfence-watchdog", daemon=True)

    def watch(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """Watch one more loop."""
        self._loops[name] = loop

    def forget(self, name: str) -> None:
        """Watch a loop no longer."""
        self._loops.pop(name, None)

    def start(self) -> None:
        """Begin to watch."""
        if self._tick_s > 0:
            self._thread.start()

    def end_within(self, seconds: float) -> None:
        """The work comes to its end: end the process if :meth:`stop` is not called within so many seconds."""
        threading.Thread(target=self._await_stop, args=(seconds,), name="ringfence-end", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(self._tick_s):
            for name, loop in list(self._loops.items()):
                if self._unanswered.get(name, 0) >= _TICKS:
                    self._end("an event loop makes no progress; the worker ends", loop=name, within_s=self._tick_s * _TICKS)
                self._ask(name, loop)

    def _ask(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """Count a tick, and put a callback on the loop unless one is still waiting there."""
        asked = self._unanswered.get(name, 0)
        self._unanswered[name] = asked + 1
        if asked:
            return
        try:
            loop.call_soon_threadsafe(self._unanswered.__setitem__, name, 0)
        except RuntimeError:  # closed: its work is over
            self.forget(name)

    def _await_stop(self, seconds: float) -> None:
        if not self._stopping.wait(seconds):
            self._end("the worker does not come to its end; it is ended", within_s=seconds)

    @staticmethod
    def _end(event: str, **why: object) -> None:
        # Standard error may be what hangs: a full pipe that nobody reads. What is said there must not hold up the end, and faulthandler
        # writes while it keeps every other thread from running.
        with contextlib.suppress(OSError):
            os.set_blocking(_STDERR, False)
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        speaking = threading.Thread(target=lambda: log.error(event, **why, exit_code=EXIT_HUNG), daemon=True)
        speaking.start()
        speaking.join(_LAST_WORDS_S)
        os._exit(EXIT_HUNG)
