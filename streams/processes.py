"""Child processes that die with us.

``spawn`` starts one, ``end`` stops it. On Linux the kernel kills every child when this process dies, in whatever way; elsewhere an
orderly end of the interpreter does. Each has a session of its own: a Ctrl-C in the terminal reaches us alone, and we stop the
children in order.
"""

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from rules.errors import CannotStart

#: Gets a line of text for each step that takes time.
Progress = Callable[[str], None]
#: Asked while waiting; true ends the wait with StartCancelled.
Cancelled = Callable[[], bool]

# PR_SET_PDEATHSIG (1) with SIGKILL (9), set by a small launcher that then becomes the server (same pid): Python's documentation
# warns against preexec_fn in a process with threads. This costs 20 ms. The parent may have died before prctl ran, hence getppid.
_LAUNCHER = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) != 0 or os.getppid() != int(sys.argv[1]):
    os._exit(127)
os.execvp(sys.argv[2], sys.argv[2:])
"""

# Linux delivers that signal when the *thread* that started the child ends (prctl(2)). This one lasts as long as the interpreter;
# a server started from a short-lived thread, for example by asyncio.to_thread, would be killed with it.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ringfence-starter")
_children: set[subprocess.Popen[bytes]] = set()


class StartCancelled(CannotStart):
    """The caller asked to stop while something was still starting."""


def check(cancelled: Cancelled | None) -> None:
    """Raise StartCancelled if the caller wants to stop."""
    if cancelled is not None and cancelled():
        raise StartCancelled("stopped while starting")


def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own that dies with this process; stdin is closed.

    Shape: ``argv[0]`` is looked up on the PATH, ``options`` are those of subprocess.Popen; the pid is the child's own.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())] if sys.platform == "linux" else []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*launcher, *argv], stdin=subprocess.DEVNULL, start_new_session=True, **options)
        _children.add(process)
        return process

    return _starter.submit(start).result()


def end(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask a child to stop (SIGTERM), kill its process group after ``grace_s``, and collect it.

    Returns: its exit code, negative for a signal. A ``grace_s`` of 0 kills at once.
    """
    if grace_s > 0:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    _kill(process)
    _children.discard(process)
    return process.wait()


@atexit.register
def kill_children() -> None:
    """Send SIGKILL to every child that still runs, without waiting; a signal handler may call it, for it waits for no lock."""
    for process in [*_children]:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
