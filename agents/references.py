"""The agents of the reference topics: parties, campaigns and caller numbers, whole and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Any, NamedTuple, cast

import structlog

from agents.context import Guard
from agents.rejects import rejection
from rules.errors import DeliveryFailed, InputError
from rules.events import ReferenceEntry, read_event
from streams.publisher import Output
from streams.tasks import Tasks

log = structlog.get_logger(__name__)

_RETRY_S, _MOST_RETRY_S = 0.2, 3.0


class ReferenceBatch(NamedTuple):
    """What a fetch of a reference topic brought: its records and the offset after them."""

    records: list[Any]
    next_offset: int


class ReferenceAgent:
    """Keeps the entries of one reference topic."""

    def __init__(self, guard: Guard, topic: str, fail: Callable[[BaseException], None]) -> None:
        self._guard = guard
        self._topic = topic
        self._tasks = Tasks(fail)

    async def run(self, batches: AsyncIterable[ReferenceBatch]) -> None:
        """Take entries in as they come, until the stream ends."""
        try:
            async for batch in batches:
                for record in batch.records:
                    self._take_in(record)
                self._guard.feed.mark_applied(self._topic, batch.next_offset)
        finally:
            self._tasks.cancel()

    def _take_in(self, record: Any) -> None:  # aiokafka's record
        reference = self._guard.reference
        try:
            if record.value is None:
                reference.remove(self._topic, _key_to_remove(record.key))
                return
            entry, unknown_fields = read_event(self._topic, record.key, record.value)
        except InputError as error:
            self._reject(record, error)
            return
        self._guard.counts["unknown fields"] += unknown_fields
        reference.put(self._topic, cast("ReferenceEntry", entry))

    def _reject(self, record: Any, error: InputError) -> None:  # aiokafka's record
        """Report a broken entry; the entry before it stays. Every worker reads it, so one report comes from each."""
        guard = self._guard
        guard.counts[f"rejected {self._topic} {error.code}"] += 1
        output = rejection(guard.settings, record, self._topic, error, guard.clock.now())
        # Apart: requests wait for this topic, and must not wait for the report. A worker that dies before it is written loses
        # nothing, because the next one reads the topic from its beginning and reports the entry again.
        self._tasks.start(self._report(output))

    async def _report(self, output: Output) -> None:
        pause_s = _RETRY_S
        while True:
            try:
                await self._guard.publisher.publish([output])
            except DeliveryFailed as failure:
                self._guard.counts.update(failure.refusals)
                log.warning("a rejected entry waits to be reported", topic=self._topic, reason=str(failure))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _MOST_RETRY_S)
            else:
                return


def _key_to_remove(key: bytes | None) -> str:
    if key is None:
        raise InputError("key_mismatch", "", "a tombstone without a key removes nothing")
    return key.decode("utf-8", "replace")
