# ruff: noqa: INP001, T201  # a script that stands alone and prints
"""Puts one record on a topic of the guard, as it is, under a key: for trying out what becomes of broken ones.

python docs/examples/put.py objections +31612345678 < record.json
"""

import asyncio
import os
import sys

from aiokafka import AIOKafkaProducer


async def put(topic: str, key: str, value: bytes) -> None:
    """Publish a record and say where it is."""
    async with AIOKafkaProducer(bootstrap_servers=os.environ["RINGFENCE_KAFKA"], acks="all") as producer:
        place = await producer.send_and_wait(f"ringfence.{topic}", value, key.encode())
    print(f"{place.topic} {place.partition}@{place.offset}")


asyncio.run(put(sys.argv[1], sys.argv[2], sys.stdin.buffer.read().rstrip()))
