"""``ringfence up``: real servers from packages, the topics, and workers and a gateway that are watched.

```
Stack        servers + topics + N workers + gateway, started and stopped in order; the demo and the tests use it too
run_up()     a Stack with signals, the ready line and exit codes
```

Order: servers, topics, workers and gateway, *ready*; down again: these (each commits what it has published), Kafka, Redis.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from rules.errors import CannotStart
from streams.embedded import LOOPBACK, EmbeddedServers, free_port
from streams.processes import Cancelled, Progress, check, end, kill_children, spawn

READY_TIMEOUT_S = 90.0
STOP_GRACE_S = 10.0
# The delays before the four restarts add up to 7.5 s (0.5, 1, 2, 4), so a worker that dies at once is soon given up.
DEATHS_MAX = 5
DEATHS_WITHIN_S = 60.0
RESTART_DELAY_S = 0.5
LOOK_EVERY_S = 0.1
_GATEWAY_COMMAND = (sys.executable, "-m", "ops.cli", "gateway")
_KEY_NAME = "local"

EXIT_STOPPED, EXIT_USAGE, EXIT_CANNOT_START, EXIT_INTERRUPTED = 0, 2, 3, 130


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What ``ringfence up`` was asked for.

    Attributes:
        data: folder that keeps Kafka's log and Redis' file; None keeps nothing.
        kafka_port: 0 takes any free one.
        redis_port: 0 takes any free one.
        workers: how many worker processes; 0 for servers and topics alone.
        gateway_port: 0 takes any free one; None starts no gateway.
        clock_start: instant (ISO 8601 with offset) at which the workers' clocks start; None leaves the system's clock.
        partitions: of each per-number topic.
        quiet: no progress, and the workers' own output goes to files; deaths and restarts are reported all the same.
        worker_command: what is run for each worker; tests put a stand-in here.
        create_topics: gets the broker's address; None creates the guard's own topics.
    """

    data: Path | None = None
    kafka_port: int = 0
    redis_port: int = 0
    workers: int = 1
    gateway_port: int | None = None
    clock_start: str | None = None
    partitions: int = 8
    quiet: bool = False
    worker_command: Sequence[str] = (sys.executable, "-m", "ops.cli", "worker")
    create_topics: Callable[[str], None] | None = None


class _Watched:
    """A worker or the gateway and its successors; ``deaths`` and ``start_at`` are monotonic times."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = command
        self.log: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = threading.Event()
        self.deaths: deque[float] = deque(maxlen=DEATHS_MAX)
        self.start_at = 0.0

    def log_tail(self) -> str:
        """The last lines of its log, if it has one."""
        if self.log is None or not self.log.exists():
            return ""
        return "".join(f"\n  {line}" for line in self.log.read_text(errors="replace").splitlines()[-8:])

    def died(self, now: float) -> bool:
        """Note a death; true when it was one too many."""
        self.process = None
        self.ready.clear()
        self.deaths.append(now)
        recent = sum(now - death < DEATHS_WITHIN_S for death in self.deaths)
        self.start_at = now + RESTART_DELAY_S * 2 ** (recent - 1)
        return recent >= DEATHS_MAX


class Stack:
    """Embedded servers, topics, workers and gateway as one thing: ``with Stack(UpOptions(workers=2)) as stack: stack.kafka``.

    ``gateway_key`` is a secret made for this gateway, with every scope; None where the environment brings its own keys.

    A thread watches over the processes. A worker that dies is started again, later each time; its fifth death within a minute, or
    the death of a server, sets ``failed`` and nothing more is started: the caller looks at it and stops.

    Raises:
        ValueError: ``clock_start`` is no instant with an offset, or ``workers`` is negative.
    """

    def __init__(self, options: UpOptions) -> None:
        if options.workers < 0:
            raise ValueError("--workers: want 0 or more")
        self.options = options
        self.failed: str | None = None
        self.clock_offset_s: float | None = None
        self.servers = EmbeddedServers(options.data, options.kafka_port, options.redis_port)
        self._clock_start = None if options.clock_start is None else _instant(options.clock_start)
        self._workers = [_Watched(f"worker {number}", options.worker_command) for number in range(1, options.workers + 1)]
        self._gateway = None if options.gateway_port is None else _Watched("gateway", _GATEWAY_COMMAND)
        self._gateway_port = 0
        brings_keys = any(os.environ.get(name) for name in ("RINGFENCE_API_KEYS", "RINGFENCE_API_KEYS_FILE"))
        self.gateway_key = None if brings_keys else secrets.token_urlsafe(24)
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="ringfence-watcher", daemon=True)
        self._held = ExitStack()

    @property
    def kafka(self) -> str:
        """``host:port`` of the broker."""
        return self.servers.kafka.address

    @property
    def redis(self) -> str:
        """``redis://host:port/0``."""
        return self.servers.redis.url

    @property
    def gateway(self) -> str:
        """``http://host:port`` of the gateway."""
        return f"http://{LOOPBACK}:{self._gateway_port}"

    @property
    def _watched(self) -> list[_Watched]:
        return self._workers if self._gateway is None else [*self._workers, self._gateway]

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now, in the order of their numbers."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    def start(self, progress: Progress | None = None, cancelled: Cancelled | None = None) -> None:
        """Start everything and return when workers and gateway have said ``ready``; not to be called where an event loop runs.

        Raises:
            CannotStart: a port is taken, a server, a worker or the gateway does not come up, or a topic cannot be made. Nothing is left
                running.
            StartCancelled: ``cancelled`` said so.
        """
        try:
            self._take_gateway_port()
            self.servers.start(progress, cancelled)
            (self.options.create_topics or self._guard_topics)(self.kafka)
            check(cancelled)
            if progress is not None and self._workers:
                progress(f"starting {len(self._workers)} worker{'' if len(self._workers) == 1 else 's'}")
            self._start_watched(cancelled)
        except BaseException:
            self.stop(0)
            raise

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop workers and gateway, then Kafka, then Redis; who is not gone after ``grace_s`` seconds is killed. Safe to call twice."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        processes = [one.process for one in self._watched if one.process is not None]
        deadline = time.monotonic() + grace_s
        if grace_s > 0:
            for process in processes:
                process.terminate()
        for process in processes:
            end(process, max(0.0, deadline - time.monotonic()))
        for one in self._watched:
            one.process = None
        self.servers.stop(grace_s)
        self._held.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _guard_topics(self, address: str) -> None:
        from config.settings import Settings
        from streams.topics import ensure_topics

        try:
            settings = Settings(kafka=address, kafka_security="PLAINTEXT", partitions=self.options.partitions, embedded=True)
        except ValueError as error:
            raise CannotStart(f"settings: {error}") from None
        asyncio.run(ensure_topics(settings))

    def _take_gateway_port(self) -> None:
        if self._gateway is None:
            return
        self._gateway_port = self.options.gateway_port or free_port()
        try:
            socket.create_server((LOOPBACK, self._gateway_port)).close()
        except OSError as error:
            raise CannotStart(
                f"port {self._gateway_port} for the gateway: {error.strerror}; give another, or 0 for any free one"
            ) from None

    def _start_watched(self, cancelled: Cancelled | None) -> None:
        if self._clock_start is not None:
            # Once, for all workers and their successors: clocks of one guard that disagree would break valid_until and retention.
            self.clock_offset_s = self._clock_start.timestamp() - time.time()
        if self.options.quiet:
            folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="ringfence-up-")))
            for one in self._watched:
                one.log = folder / f"{one.name.replace(' ', '-')}.log"
        self._watcher.start()
        deadline = time.monotonic() + READY_TIMEOUT_S
        for one in self._watched:
            while not one.ready.wait(LOOK_EVERY_S):
                check(cancelled)
                if self.failed is not None:
                    raise CannotStart(self.failed)
                if time.monotonic() > deadline:
                    raise CannotStart(f"{one.name} was not ready within {READY_TIMEOUT_S:.0f} s{one.log_tail()}")

    def _watch(self) -> None:
        while self.failed is None and not self._stopping.wait(LOOK_EVERY_S):
            for server in (self.servers.kafka, self.servers.redis):
                if not server.alive:
                    self.failed = f"{server.name} (process {server.pid}) ended by itself:\n{server.log_tail()}"
                    return
            try:
                for one in self._watched:
                    self._look_after(one, time.monotonic())
            except OSError as error:
                self.failed = f"cannot start a process: {error}"

    def _look_after(self, one: _Watched, now: float) -> None:
        if one.process is None:
            if now >= one.start_at:
                self._launch(one)
        elif (code := one.process.poll()) is not None:
            end(one.process, 0)
            what = f"{one.name} ended with code {code}{one.log_tail()}"
            if one.died(now):
                self.failed = f"{what}\nthat was its death number {DEATHS_MAX} within {DEATHS_WITHIN_S:.0f} s"
            else:
                _say(f"{what}; starting it again in {one.start_at - now:.1f} s")

    def _launch(self, one: _Watched) -> None:
        with nullcontext() if one.log is None else one.log.open("wb") as log:
            process = spawn(one.command, env=self._environment(one), stdout=subprocess.PIPE, stderr=log)
        one.process = process
        threading.Thread(target=self._read, args=(one, process), name=f"{one.name}-stdout", daemon=True).start()

    def _read(self, one: _Watched, process: subprocess.Popen[bytes]) -> None:
        """Wait for the ready line, and go on reading: a full pipe would stop the process."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.startswith(b"ready") and one.process is process:
                    one.ready.set()
                elif not self.options.quiet:
                    _say(f"{one.name}: {line.decode(errors='replace').rstrip()}")

    def _environment(self, one: _Watched) -> dict[str, str]:
        # SASL, TLS and addresses of a guard in production must not reach these workers, nor these workers that guard.
        foreign = ("RINGFENCE_KAFKA", "RINGFENCE_REDIS", "RINGFENCE_CLOCK", "RINGFENCE_REPLICATION")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {
            "RINGFENCE_KAFKA": self.kafka,
            "RINGFENCE_REDIS": self.redis,
            "RINGFENCE_EMBEDDED": "1",
            "RINGFENCE_PARTITIONS": str(self.options.partitions),
            "PYTHONUNBUFFERED": "1",
        }
        if one is self._gateway:
            environment["RINGFENCE_GATEWAY"] = f"{LOOPBACK}:{self._gateway_port}"
            environment.pop("RINGFENCE_METRICS", None)  # the workers have that address
            if self.gateway_key is not None:
                environment["RINGFENCE_API_KEYS"] = f"{_KEY_NAME} dial,report,operate {self.gateway_key}"
        if self.clock_offset_s is not None:
            environment["RINGFENCE_CLOCK_OFFSET_S"] = f"{self.clock_offset_s:.6f}"
        return environment


def run_up(options: UpOptions) -> int:
    """Run ``ringfence up`` until it is told to stop; call it in the main thread.

    Prints ``ready kafka=HOST:PORT redis=URL`` on a line of its own once all is ready, with ``gateway=URL key=SECRET`` behind it where
    there is a gateway; everything else goes to stderr.

    Returns:
        0 stopped by SIGTERM or SIGHUP, 2 an option makes no sense, 3 cannot start or something died for good (reason on stderr),
        130 Ctrl-C. Everything has been stopped by then; a second Ctrl-C kills instead of waiting.
    """
    try:
        stack = Stack(options)
    except ValueError as error:
        _say(str(error))
        return EXIT_USAGE
    with stop_signals() as told:
        try:
            stack.start(None if options.quiet else _say, lambda: told.code is not None)
            print(_ready_line(stack), flush=True)
            while told.code is None and stack.failed is None:
                time.sleep(LOOK_EVERY_S)
            trouble = f"stopped: {stack.failed}"
        except CannotStart as error:
            trouble = f"cannot start: {error}"
        finally:
            stack.stop()
        if told.code is None:
            _say(trouble)
        return EXIT_CANNOT_START if told.code is None else told.code


def _ready_line(stack: Stack) -> str:
    line = f"ready kafka={stack.kafka} redis={stack.redis}"
    if stack.options.gateway_port is not None:
        line += f" gateway={stack.gateway}"
        if stack.gateway_key is not None:
            line += f" key={stack.gateway_key}"
    return line


class _Told:
    """What signals said; plain fields, because a handler may run while its own thread holds any lock."""

    def __init__(self) -> None:
        self.code: int | None = None

    def __call__(self, number: int, _frame: object) -> None:
        if self.code is None:
            self.code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_STOPPED
        elif number == signal.SIGINT:
            kill_children()


@contextmanager
def stop_signals() -> Iterator[_Told]:
    """SIGTERM and Ctrl-C say so in what is yielded, while the block runs; a second Ctrl-C kills at once."""
    told = _Told()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, told) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError(f"--clock-start: want an instant with its offset like 2026-11-23T14:00:00+01:00, got {text!r}")
    return instant


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
