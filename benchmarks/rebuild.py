"""``python -m benchmarks.rebuild``: how long a guard takes to be whole again after its Redis was emptied, and memory a number.

A consent and an objection for every number go through a real worker; when all is applied and in the last checkpoint, Redis is flushed.
Whole is the guard when a request for a number of every partition, put after the flush, has its decision.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import redis.asyncio as redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.bulk import Record, producer_for, put
from benchmarks.contenders import RINGFENCE, Running
from benchmarks.servers import PARTITIONS, Place, on_own_servers, say
from benchmarks.stage import settled
from config.settings import Settings
from rules.instants import SECOND, parse_instant
from streams.partitioner import partition_of
from streams.topics import APPROVED, BLOCKED, ensure_topics

_CLOCK_START = "2026-11-23T09:00:00Z"
_BATCH_BYTES = 16_000

_encode = msgspec.json.Encoder().encode


def main() -> int:
    """Run the benchmark. Returns 0 measured, 3 cannot start, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebuild", description="Time of a rebuild, and memory a number.")
    parser.add_argument("--numbers", type=int, default=1_000_000, help="each with a consent and an objection (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="flush so many times (default %(default)s)")
    arguments = parser.parse_args()
    measured = on_own_servers(lambda place: _measure(place, arguments.numbers, arguments.repeat))
    print(json.dumps(measured, indent=2))
    return 0


async def _measure(place: Place, numbers: int, repeat: int) -> dict[str, Any]:
    settings = place.settings("rebuild")
    await ensure_topics(settings)
    client = redis.Redis.from_url(place.redis)
    producer = producer_for(settings, _BATCH_BYTES)
    await producer.start()
    before = (await client.info("memory"))["used_memory"]
    try:
        with Running(RINGFENCE, settings, parse_instant(_CLOCK_START) / SECOND, place.folder) as worker:
            started = time.monotonic()
            await put(producer, _records(settings, numbers))
            await settled(settings, 2 * numbers, worker.check)
            applied_s = time.monotonic() - started
            memory = (await client.info("memory"))["used_memory"] - before
            times = [await _rebuild(settings, client, producer) for _ in range(repeat)]
    finally:
        await producer.stop()
        await client.aclose()
    return {
        "numbers": numbers,
        "facts": 2 * numbers,
        "applied_and_checkpointed_s": round(applied_s, 1),
        "redis_bytes_a_number": round(memory / numbers, 1),
        "rebuild_s": [round(one, 1) for one in times],
    }


def _facts(numbers: int) -> Iterator[tuple[str, str, bytes]]:
    """Topic, key and value of every fact; event ids as systems make them, of 36 characters."""
    for n in range(numbers):
        number = f"+316{10_000_000 + n}"
        common = {"number": number, "at": "2026-11-20T10:00:00Z"}
        evidence = {"uri": f"https://crm.example/{n}", "sha256": "00"}
        given = {"kind": "given", "party_ids": ["adv-1"], "subjects": ["energy"], "channels": ["telephone"], "capture": "unticked_box"}
        consent = {"event_id": str(uuid.UUID(int=n)), **common, **given, "evidence": evidence, "verified_by": "sms", "giver_age": 44}
        yield "consents", number, _encode(consent)
        yield "objections", number, _encode({"event_id": str(uuid.UUID(int=n)), **common, "advertiser_id": "adv-2"})


def _records(settings: Settings, numbers: int) -> Iterator[Record]:
    for count, (topic, number, value) in enumerate(_facts(numbers)):
        yield Record(settings.topic(topic), partition_of(number.encode(), PARTITIONS), number.encode(), value)
        if not count % 200_000:
            say(f"{count:,} facts sent")


async def _rebuild(settings: Settings, client: redis.Redis, producer: AIOKafkaProducer) -> float:
    """Flush and ask. Returns the seconds until every partition has answered."""
    consumer = AIOKafkaConsumer(settings.topic(APPROVED), settings.topic(BLOCKED), bootstrap_servers=settings.kafka)
    await consumer.start()
    try:
        await consumer.seek_to_end()
        started = time.monotonic()
        await client.flushall()
        open_partitions = set(range(PARTITIONS))
        looked_at = 0.0
        while open_partitions:
            if time.monotonic() - looked_at > 1:  # a request is refused after a while; the next one may be decided
                looked_at = time.monotonic()
                await _ask(producer, settings, open_partitions)
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                if any(not json.loads(record.value)["reasons"][0].startswith("S_") for record in records):
                    open_partitions.discard(tp.partition)
        seconds = time.monotonic() - started
        say(f"whole again after {seconds:.1f} s")
        return seconds
    finally:
        await consumer.stop()


async def _ask(producer: AIOKafkaProducer, settings: Settings, partitions: set[int]) -> None:
    """Put a request for a number of each partition; nothing is on file, so the decision is E_FACTS_INCOMPLETE once it is one."""
    dial_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(parse_instant(_CLOCK_START) / SECOND + 60))
    left = set(partitions)
    for n in range(10_000):
        number = f"+316{10_000_000 + n}"
        partition = partition_of(number.encode(), PARTITIONS)
        if partition in left:
            left.discard(partition)
            asked = {
                "request_id": str(uuid.uuid4()), "number": number, "dial_at": dial_at, "advertiser_id": "adv-1", "campaign_id": "c-1",
                "purpose": "commercial", "subject": "energy", "dialling_mode": "manual", "cli": {"number": None, "withheld": True},
            }  # fmt: skip
            await producer.send_and_wait(settings.topic("call-requests"), _encode(asked), number.encode())


if __name__ == "__main__":
    sys.exit(main())
