"""docker-compose.yml, started for real: Kafka, Redis, two workers and the gateway in their image answer requests from this machine.

Only with a container engine, after ``make wheels``: ``make test-containers``.
"""

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis.asyncio as redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from ops.worker_status import workers
from streams.embedded import free_port
from tests.servers import NotReached, wait_for

pytestmark = [pytest.mark.containers, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
UP_TIMEOUT_S = 300
# The guard's clock, so that the test does not depend on the hour of day: a Monday, 14:00 in Amsterdam.
CLOCK_START = "2026-11-23T13:00:00Z"
KEY = secrets.token_hex(16)
# Ahead of the clock by more than the start-up takes, and within max_dial_ahead (15 min).
DIAL_AT = "2026-11-23T13:08:00Z"
NUMBER = "+31612345678"
SHOWN = "+31201234567"

PARTY = {"party_id": "A", "name": "A BV", "legal_form": "private_company", "country": "NL"}
CAMPAIGN = {"campaign_id": "c-1", "advertiser_id": "A", "objection_offered": True, "script_ref": "s-1"}
CALLER_NUMBER = {"number": SHOWN, "owner_id": "A", "callable_back": True, "tariff": "normal", "published_by": ["A"]}
CALLEE = {
    "event_id": "e-1",
    "number": NUMBER,
    "at": "2026-01-05T10:00:00Z",
    "legal_form": "natural_person",
    "person_ref": "p-1",
    "age": 45,
    "country": "NL",
}
CONSENT = {
    "event_id": "e-2",
    "number": NUMBER,
    "at": "2026-11-02T10:00:00Z",
    "kind": "given",
    "party_ids": ["A"],
    "subjects": ["energy"],
    "channels": ["telephone"],
    "capture": "unticked_box",
    "evidence": {"uri": "https://example.org/consent/1", "sha256": "0" * 64},
    "person_ref": "p-1",
    "verified_by": "sms",
}
REQUEST = {
    "request_id": "q-1",
    "number": NUMBER,
    "dial_at": DIAL_AT,
    "advertiser_id": "A",
    "campaign_id": "c-1",
    "purpose": "commercial",
    "subject": "energy",
    "own_offer": True,
    "dialling_mode": "manual",
    "cli": {"number": SHOWN, "withheld": False},
    "person_ref": "p-1",
}


def docker_works(*arguments):
    """Whether this ``docker`` command succeeds."""
    return (
        shutil.which("docker") is not None and subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0
    )


@dataclass
class Compose:
    """One project made from docker-compose.yml, under a name and ports of its own."""

    command: tuple[str, ...]
    project: str
    environment: dict[str, str]

    @property
    def kafka(self) -> str:
        """Its address on this machine."""
        return f"127.0.0.1:{self.environment['KAFKA_PORT']}"

    @property
    def redis(self) -> str:
        """Its URL on this machine."""
        return f"redis://127.0.0.1:{self.environment['REDIS_PORT']}/0"

    @property
    def gateway(self) -> str:
        """Its URL on this machine."""
        return f"http://127.0.0.1:{self.environment['GATEWAY_PORT']}"

    def run(self, *arguments, check=True, **changed):
        """Run compose, with some variables changed, and give its output; an error shows it."""
        done = subprocess.run(
            [*self.command, "--project-name", self.project, *arguments],
            cwd=ROOT,
            env=self.environment | changed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=UP_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0 or not check, f"compose {' '.join(arguments)} gave {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout

    def up(self):
        """Build the image, start everything, and wait until the health checks of all that is ours are content."""
        # Version 1 knows no --wait.
        self.run("up", "--build", "--detach")
        self.wait_for_health("healthy")

    def wait_for_health(self, wanted):
        """Wait until both workers and the gateway are in a state of health."""
        deadline = time.monotonic() + UP_TIMEOUT_S
        while (found := self._health()) != 3 * [wanted]:
            assert time.monotonic() < deadline, f"workers and gateway are {found}"
            time.sleep(1)

    def logs(self):
        """The last words of what is ours in there."""
        return self.run("logs", "--no-color", "--tail", "40", "topics", "worker", "gateway", check=False)

    def _health(self):
        containers = self.run("ps", "--quiet", "worker", "gateway").split()
        asked = ["docker", "inspect", "--format", "{{.State.Health.Status}}", *containers]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture(scope="module")
def compose():
    """The project's compose file, running; everything that it made is removed afterwards, volumes included."""
    assert list((ROOT / "dist/wheels").glob("ringfence-*.whl")), "the image is built from dist/wheels: make wheels"
    command = ("docker", "compose") if docker_works("compose", "version") else ("docker-compose",)
    name = f"ringfence-test-{secrets.token_hex(4)}"
    offset = datetime.fromisoformat(CLOCK_START) - datetime.now(UTC)
    environment = {
        **os.environ,
        "RINGFENCE_IMAGE": name,
        **{f"{service}_PORT": str(free_port()) for service in ("KAFKA", "REDIS", "GATEWAY", "PROMETHEUS", "GRAFANA")},
        "RINGFENCE_CLOCK_OFFSET_S": str(offset.total_seconds()),
        "RINGFENCE_API_KEYS": f"test dial,report,operate {KEY}",
        # Without its plugin, BuildKit cannot be used by the docker command; the classic builder is always there.
        **({} if docker_works("buildx", "version") else {"DOCKER_BUILDKIT": "0"}),
    }
    project = Compose(command, name, environment)
    try:
        project.up()
        yield project
    except AssertionError as failed:
        message = f"{failed}\n{project.logs()}"
        raise AssertionError(message) from failed
    finally:
        project.run("down", "--volumes", "--timeout", "10", check=False)
        subprocess.run(["docker", "image", "rm", project.project], capture_output=True, check=False)


async def test_a_request_from_the_host_gets_its_one_decision(compose):
    """A consent that names the caller, on a weekday afternoon: approved, with basis and evidence, within seconds."""
    async with AIOKafkaProducer(bootstrap_servers=compose.kafka, acks="all") as producer:
        for topic, key, value in (
            ("parties", "A", PARTY),
            ("campaigns", "c-1", CAMPAIGN),
            ("caller-numbers", SHOWN, CALLER_NUMBER),
            ("callees", NUMBER, CALLEE),
            ("consents", NUMBER, CONSENT),
            ("call-requests", NUMBER, REQUEST),
        ):
            await producer.send_and_wait(f"ringfence.{topic}", json.dumps(value).encode(), key=key.encode())

    answers = []
    topics = ("ringfence.approved-calls", "ringfence.blocked-calls", "ringfence.rejected-events")
    async with AIOKafkaConsumer(*topics, bootstrap_servers=compose.kafka, auto_offset_reset="earliest") as consumer:

        async def answered():
            for records in (await consumer.getmany(timeout_ms=500)).values():
                answers.extend((record.topic, json.loads(record.value)) for record in records)
            return answers

        try:
            await wait_for(answered, within_s=60)
        except NotReached as silent:
            message = f"{silent}\n{compose.logs()}"
            raise AssertionError(message) from silent
    topic, decision = answers[0]
    assert topic == "ringfence.approved-calls", decision
    assert decision["request_id"] == "q-1"
    assert decision["basis"] == "OK_CONSENT"
    assert decision["reasons"] == []
    assert "e-2" in decision["evidence"]


def over_http(compose, path, record=None, key=KEY):
    """Ask the gateway. Returns status and body."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = json.dumps(record).encode() if record is not None else None
    asked = urllib.request.Request(compose.gateway + path, data, headers)  # noqa: S310  # http, on loopback
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310  # the same
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


async def test_the_gateway_answers_who_has_the_key(compose):
    """The same call once more, under an id of its own; the call goes through Kafka and a worker like every other."""
    status, decision = await asyncio.to_thread(over_http, compose, "/v1/call-requests", REQUEST | {"request_id": "q-2"})
    assert (status, decision["request_id"], decision["kind"]) == (200, "q-2", "decision")
    status, _ = await asyncio.to_thread(over_http, compose, "/v1/call-requests", REQUEST, key="of-somebody-else")
    assert status == 401


async def test_two_workers_share_the_partitions(compose):
    """Each in a container of its own, as they say themselves."""
    async with redis.Redis.from_url(compose.redis) as client:

        async def shared():
            found = await workers(client, "ringfence")
            return [sorted(len(one.partitions) for one in found), len({one.host for one in found})] == [[4, 4], 2]

        await wait_for(shared, within_s=60)


async def test_a_health_check_is_content_only_while_calls_can_be_decided(compose):
    """Kafka goes: workers and gateway are unhealthy, and go on by themselves when it is back."""
    await asyncio.to_thread(compose.run, "stop", "kafka")
    await asyncio.to_thread(compose.wait_for_health, "unhealthy")
    await asyncio.to_thread(compose.run, "start", "kafka")
    await asyncio.to_thread(compose.wait_for_health, "healthy")


def test_nothing_starts_without_a_key(compose):
    """Not even by accident."""
    refused = compose.run("config", check=False, RINGFENCE_API_KEYS="")
    assert "RINGFENCE_API_KEYS" in refused
    assert "kafka-data" not in refused


@pytest.mark.parametrize(("options", "more"), [([], set()), (["--profile", "monitoring"], {"prometheus", "grafana"})])
def test_compose_takes_the_file(compose, options, more):
    """With and without its profile; the images of the profile need not be there for that."""
    services = set(compose.run(*options, "config", "--services").split())
    assert services == {"kafka", "redis", "topics", "worker", "gateway"} | more


async def test_prometheus_finds_both_workers_and_the_gateway(compose, tmp_path):
    """With the image that the file names, or the one that Debian's package makes; where there is neither this is left out."""
    images = ("prom/prometheus:v3.13.2", "prom/prometheus:v2.42.0")
    image = next((one for one in images if docker_works("image", "inspect", one)), None)
    if image is None:
        pytest.skip("no image of Prometheus is kept here")
    other = tmp_path / "other.yml"
    other.write_text(f"services:\n  prometheus:\n    image: {image}\n")
    files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(other), "--profile", "monitoring"]
    await asyncio.to_thread(compose.run, *files, "up", "--detach", "--no-deps", "prometheus")
    url = f"http://127.0.0.1:{compose.environment['PROMETHEUS_PORT']}/api/v1"

    def get(path):
        with urllib.request.urlopen(url + path, timeout=5) as answer:  # noqa: S310  # http, on loopback
            return json.loads(answer.read())["data"]

    async def scraped():
        try:
            found = await asyncio.to_thread(get, "/targets")
        except OSError:
            return False
        return sorted((one["labels"]["job"], one["health"]) for one in found["activeTargets"]) == [
            ("ringfence-gateway", "up"), ("ringfence-worker", "up"), ("ringfence-worker", "up"),
        ]  # fmt: skip

    await wait_for(scraped, within_s=60, every_s=0.5)
    rules = [rule for group in (await asyncio.to_thread(get, "/rules"))["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
