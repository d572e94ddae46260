"""``ringfence watch``: the live view for a guard that is running. It reads Kafka alone, changes nothing and joins no group."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from config.settings import Settings
from ops.client_log import client_silenced
from ops.live import LiveReader
from ops.snapshot import Snapshot
from ops.statistics import Statistics
from ops.up import EXIT_CANNOT_START, EXIT_STOPPED, EXIT_USAGE, stop_signals
from ops.view import Screen, summary_lines
from rules.errors import CannotStart

#: ``--json`` prints an object this often.
JSON_EVERY_S = 1.0
_LOOK_S = 0.05


def run_watch(settings: Settings, *, seconds: float | None, json_output: bool) -> int:
    """Watch a guard; call it in the main thread.

    Args:
        settings: where Kafka is (RINGFENCE_KAFKA) and the prefix of the topics.
        seconds: how long; None until Ctrl-C or SIGTERM.
        json_output: one JSON object a second on stdout instead of a view.

    Returns:
        0 time over or SIGTERM, 2 an option makes no sense, 3 no broker or no topics there (reason and address on stderr), 130
        Ctrl-C.
    """
    if seconds is not None and not seconds > 0:
        _say("--seconds: want more than 0")
        return EXIT_USAGE
    with stop_signals() as told, client_silenced():
        screen = Screen("ringfence watch")
        try:
            snapshot = asyncio.run(_watch(settings, seconds, None if json_output else screen, lambda: told.code is not None))
            if not json_output:
                screen.close_with(["", *summary_lines(snapshot)])
        except CannotStart as error:
            _say(f"cannot start: {error}")
            return EXIT_CANNOT_START
        except BrokenPipeError:
            # Whoever read our output has gone (`| head`); Python would complain once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_STOPPED if told.code is None else told.code


async def _watch(settings: Settings, seconds: float | None, screen: Screen | None, told: Callable[[], bool]) -> Snapshot:
    reader = LiveReader(settings, Statistics(time.monotonic()))
    connecting = asyncio.create_task(reader.start())
    while not connecting.done():
        await asyncio.wait([connecting], timeout=_LOOK_S)
        if told():
            connecting.cancel()
    with suppress(asyncio.CancelledError):
        await connecting
    started = time.monotonic()
    reader.statistics = Statistics(started, reader.statistics.names)
    reading = asyncio.create_task(reader.run())
    try:
        if screen is None:
            await _print_json(reader, started, seconds, told)
        else:
            with screen:
                while not _over(started, seconds, told) and not reading.done():
                    if screen.due:
                        snapshot = reader.statistics.snapshot(time.monotonic())
                        screen.show(snapshot, settings.kafka if snapshot.rate else f"{settings.kafka} silent")
                    await asyncio.sleep(_LOOK_S)
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await reader.stop()
    return reader.statistics.snapshot(time.monotonic())


async def _print_json(reader: LiveReader, started: float, seconds: float | None, told: Callable[[], bool]) -> None:
    due = started + JSON_EVERY_S
    while not told() and (seconds is None or due <= started + seconds + _LOOK_S):
        if time.monotonic() >= due:
            line = msgspec.json.encode(reader.statistics.snapshot(time.monotonic()).as_json())
            print(line.decode(), flush=True)
            due += JSON_EVERY_S
        await asyncio.sleep(_LOOK_S)


def _over(started: float, seconds: float | None, told: Callable[[], bool]) -> bool:
    return told() or (seconds is not None and time.monotonic() - started >= seconds)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
