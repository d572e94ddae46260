"""The text-book Faust agent: the same job as ``agents``, written as Faust's documentation shows it.

A pydantic model, one Redis read, the same rules and one ``topic.send`` an event, on Faust's own transport with its own defaults. It
promises less than the guard: no barrier against facts under way, no memory of requests, no journal, and offsets are committed whether
or not the broker has acknowledged the decisions. It reads the state that the guard keeps.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import faust
import msgspec
import redis.asyncio as redis
from aiokafka import AIOKafkaConsumer, TopicPartition

from config.clock import Clock
from config.rulebook import load_rulebook
from config.settings import Settings
from rules.decide import decide
from rules.events import REFERENCE_MODELS, REQUEST_TOPIC, CallRequestEvent, ReferenceEntry, read_event
from rules.facts import NumberFacts
from rules.reference import Reference
from streams.topics import APPROVED, BLOCKED

_CONCURRENCY = 10

_encode = msgspec.json.Encoder().encode
_decode_facts = msgspec.msgpack.Decoder(NumberFacts).decode


def create_app(settings: Settings, reference: Reference) -> faust.App:
    """A Faust app with one agent."""
    app = faust.App(
        settings.group,
        broker=f"kafka://{settings.kafka}",
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
    )
    clock, book = Clock.from_settings(settings), load_rulebook()
    client = redis.Redis.from_url(settings.redis.get_secret_value())

    def topic(name: str) -> Any:
        return app.topic(settings.topic(name), key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)

    approved, blocked = topic(APPROVED), topic(BLOCKED)

    # Ten instances, so that one waits for Redis while another works; what that costs is the order of the decisions.
    @app.agent(topic(REQUEST_TOPIC), concurrency=_CONCURRENCY)  # type: ignore[untyped-decorator]
    async def decide_calls(stream: Any) -> None:
        async for event in stream.events():
            request = CallRequestEvent.model_validate_json(event.value).request()
            partition = event.message.partition
            raw: Any = await client.get(f"{settings.redis_prefix}:{{{partition}}}:s:{request.number}")
            facts = _decode_facts(raw) if raw is not None else NumberFacts()
            decision = decide(request, facts, reference, book, clock.now())
            target = approved if decision.approved else blocked
            await target.send(key=event.key, value=_encode(decision), partition=partition)

    return app


async def read_reference(settings: Settings) -> Reference:
    """Read the reference topics to their present end, as a global table would."""
    reference = Reference()
    consumer = AIOKafkaConsumer(**settings.kafka_client(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        topics = {TopicPartition(settings.topic(name), 0): name for name in REFERENCE_MODELS}
        consumer.assign(list(topics))
        ends = await consumer.end_offsets(list(topics))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    entry, _ = read_event(topics[tp], record.key, record.value)
                    reference.put(topics[tp], cast("ReferenceEntry", entry))
    finally:
        await consumer.stop()
    return reference


if __name__ == "__main__":
    # Faust's worker lets every debug record of aiokafka be made and then drops it: 4 % of the CPU that no team would leave there.
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    environment = Settings()
    faust.Worker(create_app(environment, asyncio.run(read_reference(environment))), loglevel="WARNING").execute_from_commandline()
