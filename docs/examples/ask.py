# ruff: noqa: INP001, T201  # a script that stands alone and prints
"""Puts a call request on Kafka and prints the guard's decision: what a dialler does, with any client of Kafka.

RINGFENCE_KAFKA=127.0.0.1:9092 python docs/examples/ask.py docs/examples/request.json
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

KAFKA = os.environ["RINGFENCE_KAFKA"]


async def ask(request: dict) -> dict:
    """The decision about a call request."""
    reader = AIOKafkaConsumer("ringfence.approved-calls", "ringfence.blocked-calls", bootstrap_servers=KAFKA)
    writer = AIOKafkaProducer(bootstrap_servers=KAFKA, acks="all")
    async with reader, writer:
        await reader.seek_to_end()  # before the question, so that no answer is missed
        key = request["number"].encode()
        await writer.send_and_wait("ringfence.call-requests", json.dumps(request).encode(), key)
        async for record in reader:
            decision = json.loads(record.value)
            if decision["request_id"] == request["request_id"] and decision["number"] == request["number"]:
                return decision
    raise AssertionError  # the reader goes on until there is an answer


print(json.dumps(asyncio.run(ask(json.loads(Path(sys.argv[1]).read_text()))), indent=2))
