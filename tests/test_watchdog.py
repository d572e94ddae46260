"""The watchdog: a loop that hangs ends the process with the place where it hangs; one that was only stopped, or is busy, does not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: A program that has a watchdog of one second and two loops, and does something to itself.
PROGRAM = """
import asyncio, sys, threading, time

import structlog

from ops.watchdog import Watchdog

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

def the_place_where_it_hangs():
    time.sleep(60)

async def main():
    watchdog = Watchdog({within_s})
    watchdog.watch("worker", asyncio.get_running_loop())
    second = asyncio.new_event_loop()
    threading.Thread(target=second.run_forever, daemon=True).start()
    watchdog.watch("consumer", second)
    watchdog.start()
    print("watched", flush=True)
    {act}
    print("done", flush=True)
    watchdog.stop()

asyncio.run(main())
"""


def program(act: str, within_s: float = 1.0) -> subprocess.Popen[str]:
    text = PROGRAM.format(act=act, within_s=within_s)
    return subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("worker", "the_place_where_it_hangs()"),
        ("consumer", "second.call_soon_threadsafe(the_place_where_it_hangs); await asyncio.sleep(60)"),
    ],
)
def test_a_loop_that_hangs_ends_the_process_and_says_where(name: str, act: str) -> None:
    """Exit code 70; the stacks of all threads show the function in which it hung."""
    with program(act) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (70, "watched\n")
    assert "an event loop makes no progress; the worker ends" in err
    assert name in err
    assert "the_place_where_it_hangs" in err


def test_it_ends_even_where_nobody_reads_its_last_words() -> None:
    """Standard error is a pipe that is full; what is to be said there holds up nothing."""
    fill = """import os; os.set_blocking(2, False)
    try:
        while True: os.write(2, b'x' * 4096)
    except BlockingIOError: os.set_blocking(2, True)
    the_place_where_it_hangs()"""
    with program(fill) as process:
        assert process.wait(timeout=30) == 70
        process.kill()


def test_a_worker_is_watched() -> None:
    """The loop that ``ringfence worker`` runs on; whatever hangs there is stood in for."""
    text = """
import time
from config.settings import Settings
from ops.worker import Worker, run_worker

async def the_place_where_it_hangs(_worker):
    time.sleep(60)

Worker.run = the_place_where_it_hangs
run_worker(Settings(watchdog_s=1))
"""
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False, timeout=40)
    assert (done.returncode, "the_place_where_it_hangs" in done.stderr) == (70, True), done.stderr


def test_a_process_that_was_stopped_goes_on() -> None:
    """Three seconds of SIGSTOP are no hang of a loop, though a loop may take one second only."""
    with program("await asyncio.sleep(5)") as process:
        assert process.stdout.readline() == "watched\n"
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "done\n", "")


def test_a_loop_that_is_held_up_for_less_goes_on() -> None:
    """Half of the time that it may take, again and again."""
    with program("for _ in range(4): time.sleep(0.5); await asyncio.sleep(0.01)") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "watched\ndone\n", "")


def test_zero_watches_nothing() -> None:
    """A loop that hangs is left alone."""
    with program("time.sleep(2)", within_s=0) as process:
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "watched\ndone\n")


def test_a_worker_that_does_not_come_to_its_end_is_ended() -> None:
    """Its loop runs on, and something in it waits for ever; one that ends in time is left alone."""
    for act, code in (("watchdog.end_within(0.5); await asyncio.sleep(60)", 70), ("watchdog.end_within(5)", 0)):
        with program(act) as process:
            _, err = process.communicate(timeout=30)
        assert process.returncode == code
        assert ("the worker does not come to its end" in err) == (code == 70)
