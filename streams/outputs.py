"""The output topics as a source: which decisions were published, and how they get into the entries of a partition.

Needed where Redis does not know them: it was lost or rolled back, or a publish of a former owner landed late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import structlog
from aiokafka import TopicPartition

from config.settings import Settings
from rules.instants import parse_instant
from streams.kept import Entry, Journalled
from streams.log_reader import LogReader
from streams.publisher import Headers, Output
from streams.topics import APPROVED, BLOCKED

log = structlog.get_logger(__name__)

OUTPUTS = (APPROVED, BLOCKED)
INPUT_OFFSET, REQUEST_DIGEST = "input-offset", "request-digest"

_VALID_UNTIL = b'"valid_until":"'
_YIELD_EVERY = 200


class _Seen(msgspec.Struct):
    """What of a decision is looked at when it is read back; a rebuild reads hundreds of thousands."""

    request_id: str
    number: str
    decision: str
    decided_at: str
    valid_until: str | None
    as_of: dict[str, int]


_decode = msgspec.json.Decoder(_Seen).decode
_instant = lru_cache(maxsize=4096)(parse_instant)  # those of one turn are the same


class Published(NamedTuple):
    """A decision or recall as it stands in the log. Instants are microseconds; ``valid_until`` is 0 where there is none."""

    request_id: str
    item: Journalled
    decided_at: int
    valid_until: int
    as_of: dict[str, int]


def output_of(settings: Settings, partition: int, item: Journalled, context: Headers = ()) -> Output:
    """A decision or recall as it goes to the broker, with the trace context of its request where that is at hand."""
    topic = settings.topic(APPROVED if item.approved else BLOCKED)
    return Output(topic, partition, item.number.encode(), item.record, _headers_of(item, context))


def _headers_of(item: Journalled, context: Headers) -> Headers:
    """The headers of a published record: the input offset, the digest by which a later owner tells a repeat from a conflict, others."""
    headers = [(INPUT_OFFSET, str(item.offset).encode())]
    if item.fingerprint:
        headers.append((REQUEST_DIGEST, item.fingerprint))
    headers += context
    return headers


def published(record: Any) -> Published | None:  # aiokafka's record
    """A record of an output topic; None if it is none of a guard's."""
    headers = dict(record.headers)
    try:
        return _published(int(headers[INPUT_OFFSET]), record.value, headers.get(REQUEST_DIGEST, b""))
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError):
        log.warning("an output record is none of ours", topic=record.topic, partition=record.partition, offset=record.offset)
        return None


def unpublished(item: Journalled) -> Published | None:
    """A journalled decision as it will stand in the log; None if it is none of a guard's."""
    try:
        return _published(item.offset, item.record, item.fingerprint)
    except (msgspec.MsgspecError, ValueError):
        log.warning("a journalled record is none of ours", offset=item.offset)
        return None


def _published(offset: int, record: bytes, fingerprint: bytes) -> Published:
    seen = _decode(record)
    valid_until = _instant(seen.valid_until) if seen.valid_until is not None else 0
    item = Journalled(offset, seen.decision == "approved", seen.number, record, fingerprint)
    return Published(seen.request_id, item, _instant(seen.decided_at), valid_until, seen.as_of)


def matters(record: Any, committed: int, remembered_ms: int, now_text: bytes) -> bool:  # aiokafka's record
    """Whether an output record may have to be remembered, as far as that can be told without reading it.

    What is older than the request memory matters if it is a recall, if its request is not committed, or if it is an approval for a call
    that is planned ahead and may be valid yet.

    Args:
        record: of an output topic.
        committed: next input offset that is committed.
        remembered_ms: log time from which on everything matters.
        now_text: an instant before which validity has ended for certain, as decisions spell it.
    """
    if record.timestamp >= remembered_ms:
        return True
    value = record.value or b""
    if record.topic.endswith(BLOCKED):
        if b'"kind":"recall"' in value:
            return True
    else:
        begin = value.find(_VALID_UNTIL) + len(_VALID_UNTIL)
        if value[begin : begin + len(now_text)] >= now_text:
            return True
    return any(name == INPUT_OFFSET and offset.isdigit() and int(offset) >= committed for name, offset in record.headers)


def take_in(entries: dict[str, Entry], one: Published) -> bool:
    """Put a published record among the entries of its number, by request_id. Returns whether they did not say so already.

    A recall replaces its approval, whichever was read first, and of two decisions the blocked one stays.
    """
    item = one.item
    new = Entry(one.request_id, item.fingerprint, item.approved, one.decided_at, one.valid_until, item.record, item.offset)
    known = entries.get(one.request_id)
    if known is None:
        entries[one.request_id] = new
    elif not known.approved and new.valid_until > known.valid_until:
        # A recall that was read before its approval: it counts as long as that could be dialled on.
        entries[one.request_id] = msgspec.structs.replace(known, valid_until=new.valid_until)
    elif known.approved and not new.approved:
        entries[one.request_id] = msgspec.structs.replace(new, valid_until=known.valid_until, subject=known.subject)
    else:
        return False
    return True


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
            for at in range(0, len(records), _YIELD_EVERY):
                chunk = records[at : at + _YIELD_EVERY]
                found.extend(one for one in map(published, filter(wanted, chunk)) if one is not None)
                await asyncio.sleep(0)  # other partitions go on meanwhile

        ranges = {TopicPartition(self._settings.topic(name), partition): (begin[name], end[name]) for name in begin}
        await self._reader.read(ranges, take)
        return found
