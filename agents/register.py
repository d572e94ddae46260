"""One Faust agent a topic: the wiring between Faust's streams and the classes that do the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import faust
from faust.events import Event
from faust.topics import Topic

from agents.call_requests import CallRequestAgent
from agents.context import Guard
from agents.facts import FactAgent
from agents.references import ReferenceAgent, ReferenceBatch
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC

_SUBSCRIBED_CHECK_S = 0.01

Fail = Callable[[BaseException], None]


class BatchTopic(Topic):
    """A topic whose messages are whole fetches, which are passed on as they are."""

    def _compile_decode(self) -> None:
        async def decode(message: Any, *, propagate: bool = False) -> Event:  # noqa: ARG001  # Faust's signature
            return Event(self.app, None, message.value, message.headers, message)

        self.decode = decode


def register_agents(app: faust.App, guard: Guard, fail: Fail) -> dict[str, Callable[[list[Any], int], Awaitable[None]]]:
    """Put an agent for every input topic on an app.

    Returns:
        For each reference topic, how to hand a batch to its agent: records and the offset after them.
    """
    settings = guard.settings

    def consume(topic: str, work: CallRequestAgent | FactAgent) -> None:
        @app.agent(BatchTopic(app, topics=[settings.topic(topic)]), name=topic)
        async def agent(stream: Any) -> None:  # Faust's stream
            # Faust would restart an agent that raised and acknowledge the batch (faust#315); here it ends the worker instead.
            try:
                await work.run(_values(stream))
            except Exception as error:  # noqa: BLE001  # whatever it is, nothing may be skipped
                fail(error)

    consume(REQUEST_TOPIC, CallRequestAgent(guard, fail))
    for topic in FACT_MODELS:
        consume(topic, FactAgent(guard, topic, fail))
    return {topic: _reference_agent(app, ReferenceAgent(guard, topic, fail), topic, fail) for topic in REFERENCE_MODELS}


def _reference_agent(app: faust.App, work: ReferenceAgent, topic: str, fail: Fail) -> Callable[[list[Any], int], Awaitable[None]]:
    channel = app.channel()

    @app.agent(channel, name=topic)
    async def agent(stream: Any) -> None:  # Faust's stream
        try:
            await work.run(_values(stream))
        except Exception as error:  # noqa: BLE001  # as above
            fail(error)

    async def deliver(records: list[Any], next_offset: int) -> None:
        while not channel.subscriber_count:  # noqa: ASYNC110  # Faust has no event for it
            await asyncio.sleep(_SUBSCRIBED_CHECK_S)  # a channel drops what comes before its agent listens
        await channel.send(value=ReferenceBatch(records, next_offset))

    return deliver


async def _values(stream: Any) -> AsyncIterator[Any]:  # Faust's stream
    async for event in stream.noack().events():
        yield event.value
