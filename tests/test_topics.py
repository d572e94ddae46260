"""The topics: made as they must be, left alone when they are there, and spoken of plainly when they are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from config.settings import Settings
from rules.errors import CannotStart
from rules.events import FACT_MODELS, REFERENCE_MODELS
from streams.topics import PER_NUMBER, STATES, check_topics, ensure_topics, specs
from tests.harness import guard_settings, running_worker

ROOT = Path(__file__).resolve().parent.parent
PARTITIONS = 3


@pytest.fixture
def settings(kafka: str, redis_url: str, redis_prefix: str) -> Settings:
    return guard_settings(kafka, redis_url, redis_prefix, partitions=PARTITIONS)


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    yield admin
    await admin.close()


async def partitions_of(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, int]:
    names = [name for name in await admin.list_topics() if name.startswith(settings.topic_prefix)]
    return {
        topic["topic"].removeprefix(settings.topic_prefix): len(topic["partitions"]) for topic in await admin.describe_topics(names)
    }


async def config_of(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {entry[0]: entry[1] for entry in response.resources[0][4]}


async def make_differently(
    admin: AIOKafkaAdminClient, settings: Settings, name: str, partitions: int | None = None, **config: str
) -> str:
    """Make one topic as the guard would, but for some settings. Returns its full name."""
    (spec,) = [spec for spec in specs(settings) if spec.name == settings.topic(name)]
    named = spec.config(settings) | {setting.replace("_", "."): value for setting, value in config.items()}
    await admin.create_topics([NewTopic(spec.name, partitions or spec.partitions, 1, topic_configs=named)])
    return spec.name


@pytest.mark.broker
async def test_every_topic_of_the_contract_is_made_once(settings: Settings, admin: AIOKafkaAdminClient) -> None:
    """Equal partition counts for what is keyed by number, one partition for reference topics; a second time nothing is left to make."""
    wanted = dict.fromkeys((*PER_NUMBER, STATES), PARTITIONS) | dict.fromkeys(REFERENCE_MODELS, 1)
    assert len(await check_topics(settings)) == len(wanted)
    assert sorted(await ensure_topics(settings)) == sorted(map(settings.topic, wanted))
    assert await partitions_of(admin, settings) == wanted
    assert await check_topics(settings) == []
    assert await ensure_topics(settings) == []


@pytest.mark.broker
async def test_facts_are_kept_for_ever_references_compacted_and_all_stamped_by_the_broker(
    settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    """Requests and outputs may go after a while; nothing may be lost to an unclean election."""
    await ensure_topics(settings)
    for name in (*PER_NUMBER, *REFERENCE_MODELS, STATES):
        config = await config_of(admin, settings.topic(name))
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert config["unclean.leader.election.enable"] == "false"
        assert config["cleanup.policy"] == ("compact" if name in (*REFERENCE_MODELS, STATES) else "delete")
        if name in FACT_MODELS:
            assert (config["retention.ms"], config["retention.bytes"]) == ("-1", "-1")


@pytest.mark.broker
async def test_only_what_is_missing_is_made_and_what_is_there_stays_as_it_is(settings: Settings, admin: AIOKafkaAdminClient) -> None:
    """A topic with another partition count is not touched, and spoken of twice: for itself, and because counts differ."""
    odd = await make_differently(admin, settings, "callees", partitions=5)
    assert odd not in await ensure_topics(settings)
    assert (await partitions_of(admin, settings))["callees"] == 5
    own, between = await check_topics(settings)
    assert own.startswith(f"{odd}: 5 partitions, not 3; the count must not change once a topic is used")
    assert "different partition counts [3, 5]" in between


@pytest.mark.broker
async def test_a_count_that_the_settings_do_not_have_is_wrong_although_all_topics_agree(settings: Settings) -> None:
    """A guard that thinks of four partitions would look for numbers where their records are not."""
    await ensure_topics(settings)
    problems = await check_topics(settings.model_copy(update={"partitions": 4}))
    assert len(problems) == len((*PER_NUMBER, STATES))
    assert all("3 partitions, not 4" in problem for problem in problems)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("topic", "config", "sentence"),
    [
        ("objections", {"retention_ms": "604800000"}, "retention.ms is 604800000, not -1: facts would be forgotten, objections too"),
        ("consents", {"retention_bytes": "1000000"}, "retention.bytes is 1000000, not -1"),
        ("call-requests", {"retention_bytes": "1000000"}, "retention.bytes is 1000000, not -1"),
        ("objections", {"cleanup_policy": "compact"}, "compaction would drop all but the last fact of a number"),
        ("consents", {"cleanup_policy": "compact,delete"}, "compaction would drop all but the last fact of a number"),
        ("parties", {"cleanup_policy": "delete"}, "cleanup.policy is 'delete', not 'compact': old entries would come to an end"),
        ("campaigns", {"cleanup_policy": "compact,delete"}, "cleanup.policy is 'compact,delete', not 'compact'"),
        ("approved-calls", {"max_message_bytes": "1000"}, "max.message.bytes is 1000, want 1048576"),
        ("objections", {"message_timestamp_type": "CreateTime"}, "message.timestamp.type is CreateTime, not LogAppendTime"),
        ("objections", {"unclean_leader_election_enable": "true"}, "an acknowledged objection could be lost"),
    ],
)
async def test_a_setting_that_would_lose_facts_is_named(
    settings: Settings, admin: AIOKafkaAdminClient, topic: str, config: dict[str, str], sentence: str
) -> None:
    """One sentence with the topic, what was found and what it would do; a worker refuses to start over it."""
    name = await make_differently(admin, settings, topic, **config)
    await ensure_topics(settings)
    (problem,) = await check_topics(settings)
    assert problem.startswith(f"{name}: ")
    assert sentence in problem
    with pytest.raises(CannotStart, match=name):
        async with running_worker(settings):
            pass


@pytest.mark.broker
async def test_outside_the_embedded_mode_one_replica_is_not_enough(settings: Settings) -> None:
    """Two sentences a topic: too few copies, and too few that have to acknowledge."""
    await ensure_topics(settings)
    problems = await check_topics(settings.model_copy(update={"embedded": False}))
    assert len(problems) == 2 * len((*PER_NUMBER, *REFERENCE_MODELS, STATES))
    assert sum("replication factor 1, want 2 or more" in problem for problem in problems) == len(problems) // 2
    assert sum("min.insync.replicas is 1, want 2 or more" in problem for problem in problems) == len(problems) // 2


@pytest.mark.broker
async def test_more_replicas_than_brokers_is_said_when_topics_are_made(settings: Settings) -> None:
    """The default of three on a broker that stands alone."""
    with pytest.raises(CannotStart, match=r"topic \S+ cannot be created: \w*Replication"):
        await ensure_topics(settings.model_copy(update={"embedded": False}))


# --- ringfence topics -----------------------------------------------------------------------------------------------------------


def topics_command(settings: Settings, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RINGFENCE_KAFKA": settings.kafka,
        "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
        "RINGFENCE_PARTITIONS": str(settings.partitions),
        "RINGFENCE_EMBEDDED": "true",
        **variables,
    }
    command = [sys.executable, "-m", "ops.cli", "topics", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.broker
def test_the_command_says_what_is_missing_makes_it_and_is_content(settings: Settings) -> None:
    """Exit code 1 with findings on standard error, 0 without."""
    missing = topics_command(settings)
    assert missing.returncode == 1
    assert f"{settings.topic('objections')}: missing; `ringfence topics --create` makes it" in missing.stderr.splitlines()
    assert missing.stdout == ""
    made = topics_command(settings, "--create")
    assert (made.returncode, made.stderr) == (0, "")
    assert f"created {settings.topic('objections')}" in made.stdout.splitlines()
    content = topics_command(settings)
    assert (content.returncode, content.stdout, content.stderr) == (0, "topics are as they should be\n", "")
    wrong = topics_command(settings, RINGFENCE_PARTITIONS="4")
    assert wrong.returncode == 1
    assert "3 partitions, not 4" in wrong.stderr


@pytest.mark.broker
def test_the_command_speaks_json(settings: Settings) -> None:
    """What was created and what is wrong, with the same exit codes."""
    made = topics_command(settings, "--create", "--json")
    assert made.returncode == 0
    assert json.loads(made.stdout)["problems"] == []
    assert len(json.loads(made.stdout)["created"]) == len((*PER_NUMBER, *REFERENCE_MODELS, STATES))
    wrong = topics_command(settings, "--json", RINGFENCE_PARTITIONS="4")
    assert wrong.returncode == 1
    assert json.loads(wrong.stdout)["created"] == []
    assert len(json.loads(wrong.stdout)["problems"]) == len((*PER_NUMBER, STATES))


@pytest.mark.parametrize("options", [(), ("--create",), ("--json",)])
def test_without_a_broker_the_command_ends_with_three_and_names_the_address(options: tuple[str, ...]) -> None:
    """On standard error, in one line; nothing on standard output."""
    nowhere = topics_command(Settings(kafka="127.0.0.1:1"), *options)
    assert (nowhere.returncode, nowhere.stdout) == (3, "")
    assert "no Kafka broker answers at 127.0.0.1:1 (RINGFENCE_KAFKA)" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr


def test_a_setting_that_cannot_be_is_named(tmp_path: Path) -> None:
    """Exit code 3 with the variable; never the value, which may be a password."""
    wrong = topics_command(Settings(kafka="127.0.0.1:1"), RINGFENCE_PARTITIONS="none")
    assert (wrong.returncode, wrong.stdout) == (3, "")
    assert "RINGFENCE_PARTITIONS" in wrong.stderr
