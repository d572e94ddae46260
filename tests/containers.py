"""Kafka and Redis in containers. Uses only what the upstream images offer."""

from typing import Self

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

KAFKA_IMAGE = "apache/kafka:4.3.1"
REDIS_IMAGE = "redis:7.4"
# Measured on two busy cores: Kafka 2 to 8 s, Redis 0.3 s.
START_TIMEOUT_S = 60


class Kafka(DockerContainer):
    """One KRaft node. The port to advertise is known only once the container runs, so the broker's start waits for it.

    testcontainers' own KafkaContainer serves another vendor's image only.
    """

    def __init__(self) -> None:
        super().__init__(KAFKA_IMAGE)
        self.with_exposed_ports(9092).with_command(["bash", "-c", "until [ -s /tmp/go ]; do sleep 0.1; done; . /tmp/go"])
        self.with_envs(
            KAFKA_HEAP_OPTS="-Xmx512m",
            KAFKA_NODE_ID="1",
            KAFKA_PROCESS_ROLES="broker,controller",
            KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:9094",
            KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
            KAFKA_LISTENERS="PLAINTEXT://:9092,BROKER://:9093,CONTROLLER://:9094",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_INTER_BROKER_LISTENER_NAME="BROKER",
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="1",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
            KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS="1",
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
            # As in docker-compose.yml: a topic that nobody made is an error.
            KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
        )

    @property
    def address(self) -> str:
        """Bootstrap address as seen from the tests."""
        return f"{self.get_container_host_ip()}:{self.get_exposed_port(9092)}"

    def start(self) -> Self:
        """Start, tell the broker its published address, and wait until it serves."""
        super().start()
        advertised = f"PLAINTEXT://{self.address},BROKER://localhost:9093"
        self.copy_into_container(
            f"export KAFKA_ADVERTISED_LISTENERS={advertised}; exec /etc/kafka/docker/run\n".encode(),
            "/tmp/go",  # noqa: S108 - in the container
        )
        started = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(START_TIMEOUT_S).with_poll_interval(0.1)
        started.wait_until_ready(self)
        return self


class Redis(DockerContainer):
    """One Redis that, as in production, evicts nothing."""

    def __init__(self) -> None:
        ready = LogMessageWaitStrategy("Ready to accept connections").with_startup_timeout(START_TIMEOUT_S).with_poll_interval(0.1)
        super().__init__(REDIS_IMAGE, _wait_strategy=ready)
        self.with_exposed_ports(6379).with_command(
            ["redis-server", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        )

    @property
    def url(self) -> str:
        """URL of database 0 as seen from the tests."""
        return f"redis://{self.get_container_host_ip()}:{self.get_exposed_port(6379)}/0"
