"""Settings of a running guard, from environment variables that begin with ``RINGFENCE_``."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where Kafka and Redis are and how this guard behaves. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="RINGFENCE_", extra="ignore", frozen=True)

    kafka: str = Field("127.0.0.1:9092", description="bootstrap servers, HOST:PORT separated by commas")
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_tls_ca: Path | None = None
    kafka_tls_cert: Path | None = None
    kafka_tls_key: Path | None = None

    redis: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="redis:// or rediss:// URL, password included")
    redis_prefix: str = "ringfence"
    redis_timeout_s: float = Field(2.0, gt=0)

    topic_prefix: str = "ringfence."
    partitions: int = Field(8, ge=1, description="of each per-number topic; fixed once the topics are used")
    replication: int = Field(3, ge=1)
    embedded: bool = Field(default=False, description="servers of `ringfence up`: one broker, so replication 1 is accepted")

    group: str = "ringfence"
    session_timeout_s: float = Field(6.0, gt=0)
    heartbeat_s: float = Field(1.0, gt=0)
    barrier_timeout_s: float = Field(2.0, gt=0, description="how long a request waits for facts to be applied before S_STATE_STALE")
    publish_timeout_s: float = Field(10.0, gt=0)
    checkpoint_s: float = Field(10.0, gt=0, description="how often changed states are written to the compacted topic number-states")
    request_memory_s: int = Field(300, ge=60, description="how long a repeated request_id is answered with its first decision")
    batch_max: int = Field(1000, ge=1, description="about the most requests decided in one turn")

    watchdog_s: float = Field(10.0, ge=0, description="a worker whose event loop hangs for so long ends itself; 0: never")
    clock_tolerance_s: float = Field(2.0, gt=0, description="by how much the clocks of worker, broker and Redis may differ")

    rulebook_overrides: Path | None = None
    clock_start: AwareDatetime | None = Field(None, description="the clock starts at this instant and runs on; unset: the system's")
    clock_offset_s: float | None = Field(None, description="as clock_start, as seconds ahead of the system's clock")

    metrics: str | None = Field(
        None, pattern=r"^\S+:\d{1,5}$", description="HOST:PORT at which a worker or gateway shows its figures; port 0: any"
    )

    gateway: str = Field("127.0.0.1:8080", pattern=r"^\S+:\d{1,5}$", description="HOST:PORT at which the gateway listens; port 0: any")
    api_keys: SecretStr | None = Field(None, description="who may ask the gateway: NAME SCOPE[,SCOPE] SECRET; NAME ...")
    api_keys_file: Path | None = Field(None, description="the same, a line each")
    gateway_tls_cert: Path | None = None
    gateway_tls_key: Path | None = None
    gateway_wait_s: float = Field(5.0, gt=0, description="how long the gateway waits for a decision before it answers 503")
    gateway_rate: float = Field(1000.0, ge=0, description="requests a second that one key may make; 0: any number")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "console"

    def topic(self, name: str) -> str:
        """Full name of a topic of the wire contract."""
        return self.topic_prefix + name

    def kafka_client(self) -> dict[str, Any]:
        """Connection arguments that every aiokafka client takes."""
        arguments: dict[str, Any] = {"bootstrap_servers": self.kafka, "security_protocol": self.kafka_security}
        if self.kafka_security.startswith("SASL"):
            arguments["sasl_mechanism"] = self.kafka_sasl_mechanism
            arguments["sasl_plain_username"] = self.kafka_sasl_username
            password = self.kafka_sasl_password
            arguments["sasl_plain_password"] = password.get_secret_value() if password is not None else None
        if self.kafka_security.endswith("SSL"):
            arguments["ssl_context"] = self.ssl_context()
        return arguments

    def ssl_context(self) -> ssl.SSLContext:
        """TLS with the given authority, and a client certificate where there is one. Host names are always checked."""
        context = ssl.create_default_context(cafile=str(self.kafka_tls_ca) if self.kafka_tls_ca is not None else None)
        if self.kafka_tls_cert is not None:
            context.load_cert_chain(self.kafka_tls_cert, self.kafka_tls_key)
        return context
