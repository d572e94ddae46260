"""Kafka and Redis in containers answer. Only with a container engine: ``make test-containers``."""

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests import containers
from tests.servers import wait_for

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def container_kafka():
    """Address of a Kafka in a container, also where the session uses another one."""
    with containers.Kafka() as kafka:
        yield kafka.address


@pytest.fixture(scope="module")
def container_redis():
    """URL of a Redis in a container."""
    with containers.Redis() as server:
        yield server.url


async def test_what_kafka_acknowledged_comes_back_in_order(container_kafka, prefix):
    """A partition is a log: a thousand acknowledged records are read in the order in which they were sent."""
    topic = f"{prefix}round"
    sent = [b"%d" % i for i in range(1000)]
    admin = AIOKafkaAdminClient(bootstrap_servers=container_kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=container_kafka, acks="all") as producer:
        for acknowledged in [await producer.send(topic, value) for value in sent]:
            await acknowledged
    received = []
    async with AIOKafkaConsumer(topic, bootstrap_servers=container_kafka, auto_offset_reset="earliest") as consumer:

        async def all_received():
            for records in (await consumer.getmany(timeout_ms=500)).values():
                received.extend(record.value for record in records)
            return len(received) >= len(sent)

        await wait_for(all_received, within_s=30)
    assert received == sent


def test_redis_runs_scripts_and_evicts_nothing(container_redis):
    """The two things that the guard's state leans on: one atomic script, and no key that disappears by itself."""
    with redis.Redis.from_url(container_redis, decode_responses=True) as client:
        assert client.eval("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])", 1, "number", "blocked") == "blocked"
        assert client.mget(["number", "none"]) == ["blocked", None]
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
