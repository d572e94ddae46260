"""Recalls (G3): approvals of the entries that facts take back, and the records that say so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import structlog

from agents.context import Guard
from rules.decision import Decision
from rules.errors import DeliveryFailed, StateError
from rules.events import MAX_RECORD_BYTES
from rules.instants import SECOND
from rules.recall import Stop, recall, takes_back
from streams.kept import Entry, FactBatch, Journalled
from streams.outputs import output_of
from streams.partition import Partition

log = structlog.get_logger(__name__)

_RETRY_S = 0.2
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Decision).decode


class Recalls:
    """What the stops of one batch take back.

    ``entries`` holds the new entries of the numbers that have recalls, ``items`` the recalls to publish, and
    ``stopped_ms`` when the log took in the first stop of each recall that has one.
    """

    def __init__(self, guard: Guard, as_of: dict[str, int]) -> None:
        self._guard = guard
        self._as_of = as_of
        self._now = guard.clock.now()
        self._time_ms = time.time() * 1000
        self.entries: dict[str, list[Entry]] = {}
        self.items: list[Journalled] = []
        self.stopped_ms: list[int] = []

    def meet(self, number: str, entries: Sequence[Entry], stops: Sequence[Stop]) -> None:
        """Take back what the stops of a number reach among its approvals."""
        changed = [self._met(number, entry, stops) if entry.approved else entry for entry in entries]
        if changed != list(entries):
            self.entries[number] = changed

    def _met(self, number: str, entry: Entry, stops: Sequence[Stop]) -> Entry:
        valid = [stop for stop in stops if entry.valid_until > self._met_at(stop)]
        if not valid:
            return entry
        approval = _decode(entry.record)
        reference = self._guard.reference
        reaching = [stop for stop in valid if takes_back(stop, approval, entry.subject, reference)]
        return self.take_back(number, entry, reaching) if reaching else entry

    def take_back(self, number: str, entry: Entry, stops: Sequence[Stop]) -> Entry:
        """The entry of an approval that is taken back; the recall is among the items from now on."""
        taken_back = recall(_decode(entry.record), stops, self._guard.book.version, self._now, self._as_of)
        record = _encode(taken_back)
        if len(record) > MAX_RECORD_BYTES:  # ids without end; that it is taken back matters more than by what
            record = _encode(msgspec.structs.replace(taken_back, evidence=[]))
        self.items.append(Journalled(entry.offset, approved=False, number=number, record=record, fingerprint=entry.fingerprint))
        if stops:
            self.stopped_ms.append(min(stop.log_time_ms for stop in stops))
        return msgspec.structs.replace(entry, approved=False, record=record)

    def _met_at(self, stop: Stop) -> int:
        """When the log took a stop in, by the guard's clock: what was valid then is taken back, even if it has just ended."""
        return self._now - max(0, int((self._time_ms - stop.log_time_ms) * (SECOND // 1000)))


async def publish_recalls(guard: Guard, partition: Partition, batch: FactBatch) -> bool:
    """Publish the recalls of a batch that was written, until the broker has them.

    Returns:
        False if the partition is no longer ours; then its next owner finds them in Redis and publishes them.
    """
    if not batch.recalls:
        return True
    outputs = [output_of(guard.settings, partition.number, item) for item in batch.recalls]
    while not partition.revoked:
        try:
            await guard.publisher.publish(outputs)
        except DeliveryFailed as error:
            log.warning("recalls wait", partition=partition.number, reason=str(error))
            await asyncio.sleep(_RETRY_S)
        else:
            guard.counts["recalls"] += len(outputs)
            now_ms = time.time() * 1000
            for stopped_ms in batch.stopped_ms:
                guard.timings.recall.took((now_ms - stopped_ms) / 1000)
            with suppress(StateError):  # whoever finds them there publishes them once more
                await guard.store.recalls_published(partition.number, [batch.field])
            return True
    return False
