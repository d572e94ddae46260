"""Who is measured, each as a process of its own that is started, paused and looked at from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from config.settings import Settings
from rules.events import FACT_MODELS, REFERENCE_MODELS
from streams.processes import end, spawn

_ROOT = Path(__file__).parent.parent
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STOP_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that reads call-requests and writes decisions.

    ``reads`` are the other topics that it needs filled under a prefix of its own; ``says_ready`` whether a line of its output tells
    when it runs; ``warm_up`` how many requests it answers before it is measured.
    """

    name: str
    title: str
    command: tuple[str, ...]
    reads: frozenset[str] = frozenset()
    says_ready: bool = False
    warm_up: int = 2_000


RINGFENCE = Contender(
    "ringfence", "ringfence", (sys.executable, "-m", "ops.cli", "worker"), frozenset({*FACT_MODELS, *REFERENCE_MODELS}), says_ready=True
)
TEXTBOOK = Contender("textbook", "text-book Faust", (sys.executable, "-m", "benchmarks.textbook"), frozenset(REFERENCE_MODELS))
ECHO = Contender("echo", "aiokafka echo", (sys.executable, "-m", "benchmarks.echo"))


GATEWAY = Contender("gateway", "gateway", (sys.executable, "-m", "ops.cli", "gateway"), says_ready=True)


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of a program of ours, with settings that are handed on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RINGFENCE_")}
    return kept | {
        # A Python path of its own: an installed ringfence must not be measured in place of this one.
        "PYTHONPATH": str(_ROOT),
        "RINGFENCE_KAFKA": settings.kafka,
        "RINGFENCE_REDIS": settings.redis.get_secret_value(),
        "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
        "RINGFENCE_REDIS_PREFIX": settings.redis_prefix,
        "RINGFENCE_GROUP": settings.group,
        "RINGFENCE_PARTITIONS": str(settings.partitions),
        "RINGFENCE_CHECKPOINT_S": str(settings.checkpoint_s),
        "RINGFENCE_EMBEDDED": "1",
        "RINGFENCE_LOG_LEVEL": "warning",
        "RINGFENCE_GATEWAY": settings.gateway,
        "RINGFENCE_GATEWAY_RATE": str(settings.gateway_rate),
        "RINGFENCE_API_KEYS": settings.api_keys.get_secret_value() if settings.api_keys is not None else "",
    }


class Running:
    """A contender's process. Use as a context manager; a paused one is stopped like any other."""

    def __init__(self, contender: Contender, settings: Settings, clock_start_s: float, folder: Path, name: str | None = None) -> None:
        """Start it.

        Args:
            contender: what to run.
            settings: servers, names and partitions, handed on by environment.
            clock_start_s: what its clock shows now, in seconds since 1970.
            folder: for its log and whatever it leaves in its working directory.
            name: of its log, where there are two of a contender.
        """
        name = name or contender.name
        self._log, self._ready_file = folder / f"{name}.log", folder / f"{name}.ready"
        self._ready_file.unlink(missing_ok=True)
        environment = environment_of(settings) | {
            "RINGFENCE_SESSION_TIMEOUT_S": "30",  # longer than a pause
            "RINGFENCE_CLOCK_OFFSET_S": f"{clock_start_s - time.time():.6f}",
            "RINGFENCE_READY_FILE": str(self._ready_file),
        }
        with self._log.open("wb") as log:
            self._process = spawn(
                contender.command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        end(self._process, _STOP_GRACE_S)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            RuntimeError: it ended; with the end of its log.
        """
        if self._process.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
            raise RuntimeError(f"process {self.pid} ended with code {self._process.returncode}:\n{tail}")

    async def says_ready(self) -> bool:
        """Whether a line of its output begins with ``ready``."""
        return any(line.startswith("ready") for line in self._log.read_text(errors="replace").splitlines())

    def partitions_ready(self) -> int:
        """How many partitions a worker of ringfence has taken over and decides for at its last look; 0 while it is not ready."""
        if not self._ready_file.exists():
            return 0
        state = json.loads(self._ready_file.read_text())
        return int(state["partitions"]) if state["ready"] else 0

    def pause(self) -> None:
        """Stop it where it stands, so that a backlog can be written that it does not see grow."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        self._process.send_signal(signal.SIGCONT)

    def resident_mb(self) -> float:
        """Its memory now: what is resident, in 10^6 bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * _PAGE_BYTES / 1e6

    def cpu_s(self) -> float:
        """CPU seconds that it has used, user and system, all threads."""
        # The second field is the program's name in brackets and may hold spaces; utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
