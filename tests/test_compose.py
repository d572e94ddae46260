"""docker-compose.yml, started for real: Kafka, Redis and a worker in its image answer a request from this machine.

Only with a container engine, after ``make wheels``: ``make test-containers``.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.embedded import free_port
from tests.servers import NotReached, wait_for

pytestmark = [pytest.mark.containers, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
UP_TIMEOUT_S = 300
# The worker's clock, so that the test does not depend on the hour of day: a Monday, 14:00 in Amsterdam.
CLOCK_START = "2026-11-23T13:00:00Z"
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
    kafka: str

    def run(self, *arguments, check=True):
        """Run compose and give its output; an error shows it."""
        done = subprocess.run(
            [*self.command, "--project-name", self.project, *arguments],
            cwd=ROOT,
            env=self.environment,
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
        """Build the image, start everything, and wait until the worker's own health check is content."""
        if self.command == ("docker", "compose"):
            self.run("up", "--build", "--wait", "--wait-timeout", str(UP_TIMEOUT_S - 60))
            return
        # Version 1 knows no --wait.
        self.run("up", "--build", "--detach")
        deadline = time.monotonic() + UP_TIMEOUT_S
        while self._health() != "healthy":
            assert time.monotonic() < deadline, f"the worker is {self._health()}"
            time.sleep(1)

    def logs(self):
        """The last words of what is ours in there."""
        return self.run("logs", "--no-color", "--tail", "40", "topics", "worker", check=False)

    def _health(self):
        container = self.run("ps", "--quiet", "worker").strip()
        asked = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture(scope="module")
def compose():
    """The project's compose file, running; everything that it made is removed afterwards, volumes included."""
    assert list((ROOT / "dist/wheels").glob("ringfence-*.whl")), "the image is built from dist/wheels: make wheels"
    command = ("docker", "compose") if docker_works("compose", "version") else ("docker-compose",)
    name = f"ringfence-test-{secrets.token_hex(4)}"
    kafka_port, redis_port = free_port(), free_port()
    environment = {
        **os.environ,
        "RINGFENCE_IMAGE": name,
        "KAFKA_PORT": str(kafka_port),
        "REDIS_PORT": str(redis_port),
        "RINGFENCE_CLOCK_START": CLOCK_START,
        # Without its plugin, BuildKit cannot be used by the docker command; the classic builder is always there.
        **({} if docker_works("buildx", "version") else {"DOCKER_BUILDKIT": "0"}),
    }
    project = Compose(command, name, environment, f"127.0.0.1:{kafka_port}")
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
