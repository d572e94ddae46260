"""The topics of the wire contract: what they must look like, how they are created, and what is wrong with existing ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from config.settings import Settings
from rules.errors import CannotStart
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC
from streams.publisher import MAX_MESSAGE_BYTES

APPROVED, BLOCKED, REJECTED = "approved-calls", "blocked-calls", "rejected-events"
#: Of our own: the packed state of every number, by which a lost Redis is filled again.
STATES = "number-states"

#: Topics keyed by number: all have the same number of partitions, which never changes once they are used.
PER_NUMBER = (REQUEST_TOPIC, *FACT_MODELS, APPROVED, BLOCKED, REJECTED)

_FOREVER = "-1"
_WEEK_MS = str(7 * 24 * 3600 * 1000)
_HOUR_MS = str(3600 * 1000)
_STATE_SEGMENT_BYTES = str(64 << 20)
_QUARTER_MS = str(90 * 24 * 3600 * 1000)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic must be like. ``retention_ms`` -1: for ever."""

    name: str
    partitions: int
    compacted: bool
    retention_ms: str

    def config(self, settings: Settings) -> dict[str, str]:
        """Topic settings for creation."""
        config = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            # Objections, suspensions and releases are ordered by when the log took them in, not by what a producer claims.
            "message.timestamp.type": "LogAppendTime",
            "unclean.leader.election.enable": "false",
            "min.insync.replicas": "1" if settings.embedded else "2",
        }
        if not self.compacted:
            config["retention.ms"] = self.retention_ms
            config["retention.bytes"] = "-1"
        if self.name == settings.topic(STATES):
            # Kafka compacts closed segments only: smaller and younger ones keep short what a rebuild reads.
            config |= {"segment.bytes": _STATE_SEGMENT_BYTES, "segment.ms": _HOUR_MS, "min.cleanable.dirty.ratio": "0.2"}
        return config


def specs(settings: Settings) -> list[TopicSpec]:
    """Every topic that a guard reads or writes."""
    wanted = [_keyed_by_number(settings, REQUEST_TOPIC, _WEEK_MS)]
    wanted += [_keyed_by_number(settings, name, _FOREVER) for name in FACT_MODELS]
    wanted += [_keyed_by_number(settings, name, _QUARTER_MS) for name in (APPROVED, BLOCKED, REJECTED)]
    wanted += [TopicSpec(settings.topic(name), partitions=1, compacted=True, retention_ms=_FOREVER) for name in REFERENCE_MODELS]
    wanted.append(TopicSpec(settings.topic(STATES), settings.partitions, compacted=True, retention_ms=_FOREVER))
    return wanted


def _keyed_by_number(settings: Settings, name: str, retention_ms: str) -> TopicSpec:
    return TopicSpec(settings.topic(name), settings.partitions, compacted=False, retention_ms=retention_ms)


async def connected_admin(settings: Settings) -> AIOKafkaAdminClient:
    """An admin client that has reached the broker; close it after use.

    Raises:
        CannotStart: no broker answers at the address.
    """
    admin = AIOKafkaAdminClient(**settings.kafka_client(), request_timeout_ms=15_000)
    try:
        await admin.start()
    except (KafkaConnectionError, OSError) as error:
        await admin.close()
        raise CannotStart(f"no Kafka broker answers at {settings.kafka} (RINGFENCE_KAFKA): {error}") from None
    return admin


async def ensure_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing; existing ones are left as they are.

    Returns:
        Names of the topics that were created.

    Raises:
        CannotStart: no broker answers, or it refuses to create a topic.
    """
    admin = await connected_admin(settings)
    try:
        existing = set(await admin.list_topics())
        replication = 1 if settings.embedded else settings.replication
        missing = [
            NewTopic(spec.name, spec.partitions, replication, topic_configs=spec.config(settings))
            for spec in specs(settings)
            if spec.name not in existing
        ]
        created = list[str]()
        if missing:
            response = await admin.create_topics(missing, timeout_ms=15_000)
            for name, code, *message in response.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    raise CannotStart(f"topic {name} cannot be created: {error.__name__} {message[0] if message else ''}".rstrip())
                if not code:  # otherwise somebody else was faster
                    created.append(name)
            await _until_known(admin, {topic.name for topic in missing})
        return created
    except KafkaError as error:
        raise CannotStart(f"the topics cannot be created: {error!r}") from None
    finally:
        await admin.close()


async def _until_known(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Wait until the broker shows the new topics with a leader for every partition (milliseconds, as a rule)."""
    async with asyncio.timeout(30):
        while True:
            described = await admin.describe_topics(sorted(names))
            if all(_has_leaders(topic) for topic in described):
                return
            await asyncio.sleep(0.05)


def _has_leaders(topic: dict[str, Any]) -> bool:
    partitions = topic["partitions"]
    return not topic["error_code"] and bool(partitions) and all(one["leader"] >= 0 for one in partitions)


async def check_topics(settings: Settings) -> list[str]:
    """Compare the topics on the broker with what a guard needs.

    Returns:
        One sentence for each thing that is wrong; empty if all is well.

    Raises:
        CannotStart: no broker answers.
    """
    admin = await connected_admin(settings)
    try:
        wanted = specs(settings)
        existing = set(await admin.list_topics())
        problems = [f"{spec.name}: missing; `ringfence topics --create` makes it" for spec in wanted if spec.name not in existing]
        present = [spec for spec in wanted if spec.name in existing]
        if not present:
            return problems
        described = {topic["topic"]: topic for topic in await admin.describe_topics([spec.name for spec in present])}
        configs = await _configs(admin, (spec.name for spec in present))
    except KafkaError as error:
        raise CannotStart(f"the topics cannot be read: {error!r}") from None
    finally:
        await admin.close()
    for spec in present:
        problems += _problems(spec, described[spec.name], configs.get(spec.name, {}), settings)
    counts = {len(described[spec.name]["partitions"]) for spec in present if not spec.compacted}
    if len(counts) > 1:
        problems.append(
            f"the topics keyed by number have different partition counts {sorted(counts)}: facts and requests of one number would meet "
            "in different workers; all must be equal, and growth is a new topic prefix"
        )
    return problems


async def _configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {resource[3]: {entry[0]: entry[1] for entry in resource[4]} for response in responses for resource in response.resources}


def _problems(spec: TopicSpec, topic: dict[str, Any], config: dict[str, str], settings: Settings) -> list[str]:
    problems = []
    partitions = topic["partitions"]
    if len(partitions) != spec.partitions:
        remedy = "the count must not change once a topic is used; set RINGFENCE_PARTITIONS to it, or use a new topic prefix"
        problems.append(f"{spec.name}: {len(partitions)} partitions, not {spec.partitions}; {remedy}")
    policy = config.get("cleanup.policy", "")
    if spec.compacted and policy != "compact":
        problems.append(f"{spec.name}: cleanup.policy is {policy!r}, not 'compact': old entries would come to an end")
    if not spec.compacted and "compact" in policy:
        problems.append(f"{spec.name}: cleanup.policy is {policy!r}: compaction would drop all but the last fact of a number")
    if not spec.compacted and spec.retention_ms == _FOREVER and config.get("retention.ms") != _FOREVER:
        problems.append(f"{spec.name}: retention.ms is {config.get('retention.ms')}, not -1: facts would be forgotten, objections too")
    if not spec.compacted and config.get("retention.bytes", "-1") != "-1":
        problems.append(f"{spec.name}: retention.bytes is {config['retention.bytes']}, not -1: old records would be dropped by size")
    if not spec.compacted and int(config.get("max.message.bytes", MAX_MESSAGE_BYTES)) < MAX_MESSAGE_BYTES:
        largest = config["max.message.bytes"]
        problems.append(
            f"{spec.name}: max.message.bytes is {largest}, want {MAX_MESSAGE_BYTES}: a record that is refused holds its partition up"
        )
    if config.get("message.timestamp.type") != "LogAppendTime":
        problems.append(f"{spec.name}: message.timestamp.type is {config.get('message.timestamp.type')}, not LogAppendTime")
    if config.get("unclean.leader.election.enable") == "true":
        problems.append(f"{spec.name}: unclean.leader.election.enable is true: an acknowledged objection could be lost")
    if not settings.embedded:
        replicas = min((len(one["replicas"]) for one in partitions), default=0)
        if replicas < 2:  # noqa: PLR2004  # one copy is no copy
            problems.append(f"{spec.name}: replication factor {replicas}, want 2 or more (3 is usual)")
        if int(config.get("min.insync.replicas", "1")) < 2:  # noqa: PLR2004
            problems.append(f"{spec.name}: min.insync.replicas is {config.get('min.insync.replicas')}, want 2 or more")
    return problems
