"""The output topics as a source: which decisions were published, and how they get into the entries of a partition.

Needed where Redis does not know them: it was lost or rolled back, or a publish of a former owner landed late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import structlog
from aiokafka import TopicPartition

from config.settings import Settings
from rules.decision import Decision
from rules.instants import parse_instant
from streams.log_reader import LogReader
from streams.publisher import Headers
from streams.state import Entry, Journalled
from streams.topics import APPROVED, BLOCKED

log = structlog.get_logger(__name__)

OUTPUTS = (APPROVED, BLOCKED)
INPUT_OFFSET, REQUEST_DIGEST = "input-offset", "request-digest"

_decode = msgspec.json.Decoder(Decision).decode


class Published(NamedTuple):
    """A decision or recall as it stands in the log."""

    item: Journalled
    decision: Decision


def headers_of(item: Journalled) -> Headers:
    """The headers of a published record: the input offset, and the digest by which a later owner tells a repeat from a conflict."""
    headers = [(INPUT_OFFSET, str(item.offset).encode())]
    if item.fingerprint:
        headers.append((REQUEST_DIGEST, item.fingerprint))
    return headers


def published(record: Any) -> Published | None:  # aiokafka's record
    """A record of an output topic; None if it is none of a guard's."""
    headers = dict(record.headers)
    try:
        decision = _decode(record.value)
        offset = int(headers[INPUT_OFFSET])
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError):
        log.warning("an output record is none of ours", topic=record.topic, partition=record.partition, offset=record.offset)
        return None
    item = Journalled(offset, decision.approved, decision.number, record.value, headers.get(REQUEST_DIGEST, b""))
    return Published(item, decision)


def unpublished(item: Journalled) -> Published | None:
    """A journalled decision as it will stand in the log; None if it is none of a guard's."""
    try:
        return Published(item, _decode(item.record))
    except msgspec.MsgspecError:
        log.warning("a journalled record is none of ours", offset=item.offset)
        return None


def matters(record: Any, committed: int, remembered_ms: int) -> bool:  # aiokafka's record
    """Whether an output record may have to be remembered, as far as that can be told without reading it.

    An approval that is older than the request memory may be valid yet, for a call that is planned ahead, and its recall counts with it;
    an older decision that blocks matters only if its request is not committed.
    """
    if record.timestamp >= remembered_ms or not record.topic.endswith(BLOCKED) or b'"kind":"recall"' in record.value:
        return True
    return any(name == INPUT_OFFSET and value.isdigit() and int(value) >= committed for name, value in record.headers)


def taken_in(entries: list[Entry], one: Published) -> list[Entry] | None:
    """The entries of a number with a published record among them; None if they say so already.

    A recall replaces its approval, whichever was read first, and of two decisions the blocked one stays.
    """
    decision, item = one.decision, one.item
    valid_until = parse_instant(decision.valid_until) if decision.valid_until is not None else 0
    new = Entry(
        decision.request_id, item.fingerprint, item.approved, parse_instant(decision.decided_at), valid_until, item.record, item.offset
    )
    known = next((entry for entry in entries if entry.request_id == new.request_id), None)
    if known is None:
        return [*entries, new]
    if new.valid_until > known.valid_until and not known.approved:
        known_longer = msgspec.structs.replace(known, valid_until=new.valid_until)  # as long as its approval could be dialled on
        return [known_longer if entry is known else entry for entry in entries]
    if known.approved and not new.approved:
        recalled = msgspec.structs.replace(new, valid_until=known.valid_until, subject=known.subject)
        return [recalled if entry is known else entry for entry in entries]
    return None


class OutputLog:
    """What was published about partitions. Every method raises ``StateError`` if the broker does not answer."""

    def __init__(self, settings: Settings, reader: LogReader) -> None:
        self._settings = settings
        self._reader = reader

    async def ends(self, partitions: Iterable[int]) -> dict[int, dict[str, int]]:
        """Of each partition the next offset of each output topic (name without prefix)."""
        asked = list(partitions)
        ends = await self._reader.ends(TopicPartition(self._settings.topic(name), number) for number in asked for name in OUTPUTS)
        return {number: {name: ends[TopicPartition(self._settings.topic(name), number)] for name in OUTPUTS} for number in asked}

    async def since(self, partition: int, time_ms: int) -> dict[str, int]:
        """The first offset of each output topic (name without prefix) at or after a log time."""
        tps = {name: TopicPartition(self._settings.topic(name), partition) for name in OUTPUTS}
        found = await self._reader.since(tps.values(), time_ms)
        return {name: found[tp] for name, tp in tps.items()}

    async def read(
        self, partition: int, begin: Mapping[str, int], end: Mapping[str, int], wanted: Callable[[Any], bool] = lambda _record: True
    ) -> list[Published]:
        """The records of a partition between two positions of the output topics, those of each topic in order."""
        found: list[Published] = []

        async def take(records: list[Any]) -> None:
            found.extend(one for one in map(published, filter(wanted, records)) if one is not None)

        ranges = {TopicPartition(self._settings.topic(name), partition): (begin[name], end[name]) for name in begin}
        await self._reader.read(ranges, take)
        return found
