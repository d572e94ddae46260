"""Lets go of a consumer, whatever state its broker is in."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError


async def disconnect(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer that belongs to no group, and close its connections."""
    try:
        await consumer.stop()
    except (KafkaError, asyncio.CancelledError):
        # aiokafka 0.14 cancels tasks of its own here and passes that on as if we had been cancelled: its fetches with the broker away,
        # and one that has not begun where partitions were assigned a moment ago. It leaves its connections open then.
        await consumer._client.close()  # noqa: SLF001
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
