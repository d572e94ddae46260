"""How much of what the inputs hold the guard has not dealt with yet, by its committed offsets.

A worker commits a request when the broker has its answer, and a fact when it is applied, so nothing of the outputs has to be read
to know what is open; reading them would compete with the workers for the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from config.settings import Settings
from rules.events import FACT_MODELS, REQUEST_TOPIC

_ANSWER_WITHIN_S = 3.0


class Lag:
    """Use as an asynchronous context manager, entered while the broker is up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AIOKafkaAdminClient(**settings.kafka_client())
        self._consumer = AIOKafkaConsumer(**settings.kafka_client(), enable_auto_commit=False)
        self._requests = [TopicPartition(settings.topic(REQUEST_TOPIC), number) for number in range(settings.partitions)]
        self._facts = [TopicPartition(settings.topic(name), number) for name in FACT_MODELS for number in range(settings.partitions)]

    async def __aenter__(self) -> Self:
        await self._admin.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def look(self) -> tuple[int, int] | None:
        """Requests without an answer, and facts that are not applied; None while the broker does not say."""
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                committed = await self._admin.list_consumer_group_offsets(self._settings.group)
                ends = await self._consumer.end_offsets([*self._requests, *self._facts])
                done = {tp: max(0, found.offset) for tp, found in committed.items()}
                requests, facts = (
                    sum(max(0, ends[tp] - done.get(tp, 0)) for tp in partitions) for partitions in (self._requests, self._facts)
                )
                return requests, facts
        return None
