"""An import: rows become events, events are checked by the contract's model and published, and what cannot be used is put aside.

Rows are published in order within a number, a chunk at a time, and a chunk is written down as done when the broker has acknowledged all
of it. So a run that is cut off repeats a chunk at most, and an event that is repeated changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import msgspec
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.bulk.progress import Progress, begin_or_go_on, done, keep
from ops.bulk.rows import Row, Source
from ops.client_log import connecting
from rules.errors import CannotStart, DeliveryFailed, InputError
from rules.events import FACT_MODELS, MAX_RECORD_BYTES, REFERENCE_KEYS, validate
from streams.partitioner import partition_of
from streams.publisher import Output, Publisher

_CHUNK_ROWS = 2_000
_GIVE_UP_S = 60.0
_PAUSE_S = 1.0

_encode = msgspec.json.Encoder(order="deterministic").encode

#: Told after every chunk: the progress, and how far the file is read of how much.
Report = Callable[[Progress, int, int], None]


class Import:
    """One file on its way into one topic.

    Args:
        settings: the broker and its topics.
        source: the file.
        bad: where rows go that cannot be used; made when the first one comes, for its owner's eyes alone.
        restart: begin anew, also where an earlier run can be gone on with.
        dry_run: check everything and publish nothing; no progress is kept.
    """

    def __init__(self, settings: Settings, source: Source, bad: Path, *, restart: bool, dry_run: bool) -> None:
        self._settings = settings
        self._source = source
        self._topic = settings.topic(source.topic)
        self._key_field = REFERENCE_KEYS.get(source.topic, "number")
        self._bad = bad
        self._dry_run = dry_run
        self._publisher = Publisher(settings)
        self._partitions = settings.partitions if source.topic in FACT_MODELS else 1
        self.progress = begin_or_go_on(source.path, self._topic, restart=restart or dry_run)
        self.resumed_after = self.progress.line

    async def run(self, report: Report) -> None:
        """Import everything that is not done yet.

        Raises:
            CannotStart: the file cannot be read, or there is no such broker or topic.
            DeliveryFailed: the broker does not take the records; what is done is written down.
        """
        try:
            if not self._dry_run:
                await self._connect()
            with self._source.opened() as (size, rows):
                begun = _from(rows, self.resumed_after)
                while chunk := list(islice(begun, _CHUNK_ROWS)):
                    await self._take(chunk)
                    report(self.progress, chunk[-1].read, size)
                    await asyncio.sleep(0)
            if not self._dry_run:
                done(self._source.path)
        finally:
            await self._publisher.stop()

    async def _connect(self) -> None:
        address = self._settings.kafka
        with connecting(self._settings):
            await self._publisher.start()
        try:
            found = await self._publisher.partitions(self._topic)
        except (KafkaError, OSError):
            found = 0
        if found != self._partitions:
            raise CannotStart(
                f"{self._topic} on {address} has {found} partitions, want {self._partitions}; `ringfence topics` says what is wrong"
            )

    async def _take(self, chunk: list[Row]) -> None:
        outputs, bad = list[Output](), list[bytes]()
        for row in chunk:
            try:
                outputs.append(self._output(row))
            except InputError as error:
                why = {"line": row.line, "code": error.code, "field": error.field, "message": error.message}
                bad.append(msgspec.json.encode(why | {"row": row.raw}))
        if not self._dry_run:
            await self._publish(outputs)
        if bad:
            self._put_aside(bad)
        progress = self.progress
        progress.line, progress.published, progress.bad = chunk[-1].line, progress.published + len(outputs), progress.bad + len(bad)
        if not self._dry_run:
            keep(self._source.path, progress)

    def _output(self, row: Row) -> Output:
        """The record of a row.

        Raises:
            InputError: the row is no event of this topic.
        """
        if row.event is None:
            raise row.fault or InputError("type", "", "no event")
        event = row.event
        if self._source.topic in FACT_MODELS and "event_id" not in event:
            event = {"event_id": derived_id(self._source.topic, event), **event}
        validate(self._source.topic, event)
        value = msgspec.json.encode(event)
        if len(value) > MAX_RECORD_BYTES:
            raise InputError("too_large", "", f"{len(value)} bytes; at most {MAX_RECORD_BYTES} are read")
        key = str(event[self._key_field]).encode()
        return Output(self._topic, partition_of(key, self._partitions), key, value)

    async def _publish(self, outputs: list[Output]) -> None:
        """Publish a chunk; a broker that is away is waited for, for a while."""
        give_up = monotonic() + _GIVE_UP_S
        while outputs:
            try:
                await self._publisher.publish(outputs)
            except DeliveryFailed as error:
                if monotonic() > give_up:
                    raise
                outputs = list(error.undelivered)
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    def _put_aside(self, lines: list[bytes]) -> None:
        # Rows are personal data, whatever is wrong with them. A run that begins anew begins the side file anew.
        anew = self.progress.bad == 0
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND)
        file: BinaryIO
        with os.fdopen(os.open(self._bad, flags, 0o600), "wb") as file:
            file.writelines(line + b"\n" for line in lines)


def derived_id(topic: str, event: dict[str, Any]) -> str:
    """The event_id of a row that has none: of its content, so that a file that is imported again changes nothing."""
    return f"import-{hashlib.sha256(_encode([topic, event])).hexdigest()[:32]}"


def _from(rows: Iterator[Row], after: int) -> Iterator[Row]:
    """The rows behind a line."""
    return (row for row in rows if row.line > after)
