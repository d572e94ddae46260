"""The permissions that docs/topics.md tells to give are enough: a real broker has no others, and each program runs as its user."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis as redis_client
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest

from config.settings import Settings
from ops.gateway.server import Server
from streams.embedded import LOOPBACK, EmbeddedKafka, free_port
from streams.topics import STATES, check_topics, ensure_topics
from tests.doc_samples import ROOT, samples
from tests.harness import Client, Running, SetClock, encode, running_worker
from tests.scene import REFERENCE, ask, consent, home, number, numbers, objection, outcome, request
from tests.servers import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.slow]

USERS = ("worker", "setup", "gateway", "dialler", "crm", "operator", "watcher", "auditor")
# Numbers of Kafka's protocol.
RESOURCES = {"--topic": 2, "--group": 3, "--transactional-id": 5}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
LITERAL, PREFIXED, ALLOW = 3, 4, 3
Rule = tuple[int, str, int, str, str, int, int]


class GuardedKafka(EmbeddedKafka):
    """A broker at which everybody but the test needs permissions; a user's password is its name."""

    def __init__(self) -> None:
        super().__init__()
        self.sasl_port = free_port()

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        for name in ("listeners", "advertised.listeners"):
            settings[name] += f",SASL://{LOOPBACK}:{self.sasl_port}"
        settings["listener.security.protocol.map"] += ",SASL:SASL_PLAINTEXT"
        users = " ".join(f'user_{user}="{user}"' for user in USERS)
        login = "org.apache.kafka.common.security.plain.PlainLoginModule"
        return settings | {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": f"{login} required {users};",
        }


def rules() -> Iterator[Rule]:
    """Every permission that the page's commands give."""
    for sample in samples(ROOT / "docs" / "topics.md"):
        for line in re.findall(r"^\$A (.+)$", sample.text, re.MULTILINE):
            words = shlex.split(line)
            pairs = list(zip(words[::2], words[1::2], strict=True))
            (user,) = [value for option, value in pairs if option == "--allow-principal"]
            pattern = PREFIXED if ("--resource-pattern-type", "prefixed") in pairs else LITERAL
            for operation in [OPERATIONS[value] for option, value in pairs if option == "--operation"]:
                for option, name in pairs:
                    if option in RESOURCES:
                        yield RESOURCES[option], name, pattern, user, "*", operation, ALLOW


async def give(kafka: str) -> None:
    """Give all of them; a super user asks for it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        for rule in rules():
            response = await admin._send_request(CreateAclsRequest(*rule))
            assert [code for code, *_ in response.creation_responses] == [0], rule
    finally:
        await admin.close()


@dataclass
class Granted:
    """The broker with those permissions, and a Redis."""

    broker: GuardedKafka
    redis: str
    prefix: str

    def settings(self, user: str, **options: Any) -> Settings:
        """Settings of a program that runs as a user. Topics and group have their default names, as on the page."""
        return Settings(
            kafka=f"{LOOPBACK}:{self.broker.sasl_port}", kafka_security="SASL_PLAINTEXT", kafka_sasl_mechanism="PLAIN",
            kafka_sasl_username=user, kafka_sasl_password=user, redis=self.redis, redis_prefix=self.prefix, partitions=4, embedded=True,
            **options,
        )  # fmt: skip

    def run(self, user: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user."""
        settings = self.settings(user)
        environment = {
            **os.environ,
            "RINGFENCE_KAFKA": settings.kafka,
            "RINGFENCE_KAFKA_SECURITY": "SASL_PLAINTEXT",
            "RINGFENCE_KAFKA_SASL_MECHANISM": "PLAIN",
            "RINGFENCE_KAFKA_SASL_USERNAME": user,
            "RINGFENCE_KAFKA_SASL_PASSWORD": user,
            "RINGFENCE_REDIS": self.redis,
            "RINGFENCE_REDIS_PREFIX": self.prefix,
            "RINGFENCE_PARTITIONS": "4",
            "RINGFENCE_EMBEDDED": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "ops.cli", *words],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
async def granted(redis_url: str) -> AsyncIterator[Granted]:
    """Topics made by the user who may."""
    with GuardedKafka() as broker:
        await give(broker.address)
        granted = Granted(broker, redis_url, f"permissions-{broker.port}")
        setup = granted.settings("setup")
        await ensure_topics(setup)
        assert await check_topics(setup) == []
        yield granted
        with redis_client.Redis.from_url(redis_url) as redis:
            for key in redis.scan_iter(match=f"{granted.prefix}*", count=1000):
                redis.unlink(key)


@pytest.fixture(scope="module")
async def guard(granted: Granted) -> AsyncIterator[Running]:
    """A worker as its user, and a client that may do everything."""
    settings = granted.settings("worker", checkpoint_s=0.5)
    client, clock = Client(settings.model_copy(update={"kafka": granted.broker.address})), SetClock()
    await client.start()
    try:
        async with running_worker(settings, clock) as worker:
            for event in REFERENCE:
                await client.put(*event)
            yield Running(worker, client, clock)
    finally:
        await client.stop()


async def test_a_worker_does_all_that_it_does(granted: Granted, guard: Running):
    """Decides, recalls, rejects, moves home, writes checkpoints, and fills a lost Redis again from them and from its outputs."""
    client, (of, moved) = guard.client, numbers(2)
    await client.put(*consent(of))
    assert (await ask(client, of))["decision"] == "approved"
    topic, objecting = objection(of)
    await client.put(topic, objecting)
    await wait_for(lambda: any(one["kind"] == "recall" for one in client.decisions))
    await client.put_raw("objections", moved.encode(), encode(objection(moved)[1]), (home(moved, 4) + 1) % 4)
    await wait_for(lambda: guard.worker.guard.counts["misplaced objections"])
    await client.put_raw("objections", numbers(1)[0].encode(), b"{")
    await wait_for(lambda: client.rejected)
    states = TopicPartition(guard.worker.guard.settings.topic(STATES), home(of, 4))

    async def can_be_read() -> bool:
        """The broker shows a checkpoint some time after it has told its writer that it is committed."""
        return (await guard.worker._reader.ends([states]))[states] > 0

    await wait_for(can_be_read)
    with redis_client.Redis.from_url(granted.redis) as redis:
        redis.delete(*redis.scan_iter(match=f"{granted.prefix}*", count=1000))
    assert (await ask(client, of, within_s=60))["reasons"] == ["E_OBJECTION"]
    assert guard.worker._checkpoints.records_read


async def test_a_dialler_asks_reads_and_reports_and_invents_no_consent(granted: Granted, guard: Running):
    """Also with an idempotent producer, and in a group of its own."""
    dialler = granted.settings("dialler").kafka_client()
    approved = granted.settings("dialler").topic("approved-calls")
    (of,) = numbers(1)
    await guard.client.put(*consent(of))
    asked = request(of)
    async with (
        AIOKafkaConsumer(approved, **dialler, group_id="dialler-1", auto_offset_reset="earliest") as consumer,
        AIOKafkaProducer(**dialler, acks="all", enable_idempotence=True) as producer,
    ):
        await producer.send_and_wait("ringfence.call-requests", encode(asked), of.encode())
        async with asyncio.timeout(20):
            async for record in consumer:
                if json.loads(record.value)["request_id"] == asked["request_id"]:
                    break
        await consumer.commit()
        await producer.send_and_wait("ringfence.objections", encode(objection(of)[1]), of.encode())
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait("ringfence.consents", encode(consent(of)[1]), of.encode())


def test_an_import_may_write_what_its_user_may(granted: Granted, tmp_path: Path):
    for topic, event in (consent(number(999_001)), REFERENCE[0]):
        file = tmp_path / f"{topic}.jsonl"
        file.write_bytes(encode(event))
        done = granted.run("crm", "import", str(file))
        assert done.returncode == 0, done.stderr
    file = tmp_path / "call-outcomes.jsonl"
    file.write_bytes(encode(outcome(number(999_001), "connected")[1]))
    assert granted.run("crm", "import", str(file)).returncode == 3


async def test_an_operator_repairs_and_releases(granted: Granted, guard: Running):
    client, (of,) = guard.client, numbers(1)
    place = await client.put_raw("objections", of.encode(), b"[]")
    await wait_for(lambda: any((one["topic"], one["offset"]) == ("objections", place.offset) for one in client.rejected))
    listed = await asyncio.to_thread(granted.run, "operator", "rejected", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    newest = json.loads(listed.stdout)["events"][0]["id"]
    replayed = await asyncio.to_thread(granted.run, "operator", "rejected", "replay", newest, "--yes")
    assert replayed.returncode == 0, replayed.stderr
    for words in (["quarantine", "list"], ["quarantine", "release", of, "--by", "me", "--reason", "a test", "--no-wait"]):
        done = await asyncio.to_thread(granted.run, "operator", *words)
        assert done.returncode == 0, done.stderr


async def test_who_watches_and_who_audits_only_read(granted: Granted, guard: Running):
    (of,) = numbers(1)
    asked = (await ask(guard.client, of))["request_id"]
    watched = await asyncio.to_thread(granted.run, "watcher", "watch", "--seconds", "1", "--json")
    assert watched.returncode == 0, watched.stderr
    audited = await asyncio.to_thread(granted.run, "auditor", "audit", "--json", "--jobs", "1")
    assert audited.stdout, audited.stderr
    assert json.loads(audited.stdout)["counts"]["decisions"]
    explained = await asyncio.to_thread(granted.run, "auditor", "explain", asked, "--json")
    assert json.loads(explained.stdout)["request_id"] == asked, explained.stderr


async def test_a_gateway_asks_reports_and_shows(granted: Granted, guard: Running):
    secret = "a-secret-of-the-tests-alone"  # noqa: S105  # nobody else has this gateway
    gateway = Server(granted.settings("gateway", gateway="127.0.0.1:0", api_keys=f"me dial,report,operate {secret}"))
    ready = asyncio.Event()
    serving = asyncio.create_task(gateway.run(ready.set))
    (of,) = numbers(1)

    def ask_for(path: str, record: Any = None) -> str:
        asked = Request(f"{gateway.url}{path}", record, {"Authorization": f"Bearer {secret}"})  # noqa: S310  # http, as the gateway says
        with urlopen(asked, timeout=20) as answer:  # noqa: S310
            return answer.read().decode()

    async def asked(path: str, record: Any = None) -> Any:
        return json.loads(await asyncio.to_thread(ask_for, path, None if record is None else encode(record)))

    try:
        await wait_for(lambda: serving.done() or ready.is_set())
        await wait_for(lambda: gateway.gateway.feed.trouble is None)
        for event in (*REFERENCE, consent(of)):
            await asked(f"/v1/{event[0]}", event[1])
        assert (await asked("/v1/call-requests", request(of)))["decision"] == "approved"
        await asked("/v1/objections", objection(of)[1])
        assert (await asked("/v1/call-requests", request(of)))["reasons"] == ["E_OBJECTION"]
        for path in (f"/v1/numbers/%2B{of[1:]}", "/v1/rejected", "/v1/quarantine", "/v1/overview"):
            assert await asked(path)
    finally:
        gateway.stop()
        await serving
