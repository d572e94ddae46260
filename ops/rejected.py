"""What ``ringfence rejected`` does: finds records of rejected-events, shows them, and publishes what they hold again.

An event is named ``PARTITION@OFFSET`` after its place in rejected-events. Numbers are masked unless somebody asks for them.
"""

from __future__ import annotations

import base64
import heapq
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from config.settings import Settings
from ops.topic_log import Publish, TopicLog
from rules.e164 import is_e164, masked, masked_in
from rules.errors import InputError, RingfenceError
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC, read_event
from rules.instants import parse_instant

_ID = re.compile(r"([0-9]{1,9})@([0-9]{1,18})")
_REPLAYABLE = {REQUEST_TOPIC, *FACT_MODELS, *REFERENCE_MODELS}
#: agents.rejects cuts a key there.
_CUT_KEY_BYTES = 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class NotReplayable(RingfenceError):
    """A rejected event that must not be published again as it is; the message says why."""


class Fault(msgspec.Struct, frozen=True):
    """What was wrong: a code of the contract, the path of the field, and the shape that was wanted."""

    code: str
    field: str
    message: str


class Report(msgspec.Struct, frozen=True):
    """The value of a record of rejected-events."""

    topic: str
    partition: int
    offset: int
    key: str | None
    rejected_at: str
    error: Fault
    value: str | None = None
    truncated: bool = False


_decode = msgspec.json.Decoder(Report).decode


@dataclass(frozen=True, order=True)
class Rejected:
    """A record of rejected-events; the newest is the greatest."""

    log_time_ms: int
    partition: int
    offset: int
    key: bytes | None = field(compare=False)
    report: Report = field(compare=False)

    @property
    def id(self) -> str:
        """Its name: where it stands in rejected-events."""
        return f"{self.partition}@{self.offset}"

    @property
    def source(self) -> str:
        """Where the original stands in its own topic."""
        return f"{self.report.partition}@{self.report.offset}"

    @property
    def original(self) -> bytes | None:
        """The original's bytes, None if it was a null. If ``truncated``, the first 512 KiB of them."""
        return None if self.report.value is None else base64.b64decode(self.report.value)

    def shown_key(self, *, unmasked: bool = False) -> str:
        """The original's key; that of a topic keyed by number is masked whatever it is, ids are not."""
        key = self.report.key
        if key is None:
            return "-"
        if unmasked:
            return printable(key)
        return printable(masked_in(key)) if self.report.topic in ("parties", "campaigns") else masked(key)

    def as_json(self, *, unmasked: bool = False) -> dict[str, Any]:
        """What a listing shows."""
        report = self.report
        return {
            "id": self.id,
            "rejected_at": report.rejected_at,
            "topic": report.topic,
            "partition": report.partition,
            "offset": report.offset,
            "key": None if report.key is None else self.shown_key(unmasked=unmasked),
            "error": {"code": report.error.code, "field": report.error.field, "message": report.error.message},
            "truncated": report.truncated,
        }


@dataclass(frozen=True)
class Filters:
    """Which events are meant; None: any. ``since`` is an instant in microseconds, compared with ``rejected_at``."""

    topic: str | None = None
    code: str | None = None
    since: int | None = None

    def match(self, report: Report) -> bool:
        """Whether an event is meant."""
        return (
            self.topic in (None, report.topic)
            and self.code in (None, report.error.code)
            and (self.since is None or parse_instant(report.rejected_at) >= self.since)
        )


@dataclass
class Found:
    """The newest events that were meant, newest first; how many there were; and how many records were no reports at all."""

    newest: list[Rejected]
    matching: int
    unreadable: int


def read(record: ConsumerRecord[bytes, bytes]) -> Rejected | None:
    """A record of rejected-events; None if it is none of ours."""
    try:
        report = _decode(record.value or b"")
        base64.b64decode(report.value or "", validate=True)
        parse_instant(report.rejected_at)
    except ValueError:  # msgspec's errors, base64's and parse_instant's are all of it
        return None
    return Rejected(record.timestamp, record.partition, record.offset, record.key, report)


def parse_id(text: str) -> tuple[int, int]:
    """Partition and offset of an event's id.

    Raises:
        ValueError: it is no ``PARTITION@OFFSET``.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise ValueError("want PARTITION@OFFSET as `ringfence rejected list` shows it, like 3@17")
    return int(found[1]), int(found[2])


async def find(log: TopicLog, filters: Filters, limit: int) -> Found:
    """The newest events that filters mean. Memory is bounded by ``limit``, not by the topic."""
    newest: list[Rejected] = []
    matching = unreadable = 0
    async for event in _events(log):
        if event is None:
            unreadable += 1
        elif filters.match(event.report):
            matching += 1
            (heapq.heappush if len(newest) < limit else heapq.heappushpop)(newest, event)
    return Found(sorted(newest, reverse=True), matching, unreadable)


async def find_ids(log: TopicLog, ids: Iterable[tuple[int, int]]) -> tuple[list[Rejected], list[str]]:
    """Events by partition and offset. Returns those that are there, and the ids of those that are not."""
    events, lacking = list[Rejected](), list[str]()
    for partition, offset in ids:
        record = await log.record(partition, offset)
        event = read(record) if record is not None else None
        if event is None:
            lacking.append(f"{partition}@{offset}")
        else:
            events.append(event)
    return events, lacking


async def _events(log: TopicLog) -> AsyncIterator[Rejected | None]:
    async for record in log.records():
        yield read(record)


# --- The original, as people may read it ----------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """A text that changes nothing in the terminal: control characters, and those that turn its direction, as escapes."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown_value(raw: bytes | None, *, unmasked: bool) -> tuple[str, str | None]:
    """An original's bytes for people.

    Returns:
        How they are written, and the text: ``utf-8`` as they are; ``escaped`` where they are no UTF-8 and masked, with escapes for what
        is no text; ``base64`` where they are no UTF-8 and unmasked; ``null`` for a null.
    """
    if raw is None:
        return "null", None
    try:
        text, encoding = raw.decode(), "utf-8"
    except UnicodeDecodeError:
        if unmasked:
            return "base64", base64.b64encode(raw).decode()
        text, encoding = raw.decode("utf-8", "backslashreplace"), "escaped"
    return encoding, text if unmasked else masked_in(text)


# --- Publishing again -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replay:
    """An original, or its repaired form, as it is to be published again. ``partition`` None: that of the key.

    ``fault`` is what is still wrong with it; the guard will reject it again.
    """

    event: Rejected
    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    fault: InputError | None


def plan(event: Rejected, settings: Settings, edited: bytes | None = None, key: str | None = None) -> Replay:
    """How an event would be published again.

    Args:
        event: the rejected event.
        settings: for the name of its topic.
        edited: repaired bytes in place of the original's.
        key: another key in place of the original's.

    Raises:
        NotReplayable: its bytes or its key were cut and nothing takes their place, or its topic is not one of the guard's inputs.
    """
    report = event.report
    if report.topic not in _REPLAYABLE:
        raise NotReplayable(f"{event.id}: its topic is none of the guard's inputs")
    if report.truncated and edited is None:
        raise NotReplayable(f"{event.id}: its bytes were cut at 512 KiB; the whole record is at {event.source} of {report.topic}")
    if key is None and event.key is not None and len(event.key) >= _CUT_KEY_BYTES:
        raise NotReplayable(f"{event.id}: its key was cut at {_CUT_KEY_BYTES} bytes; give one with --key")
    own_key = key.encode() if key is not None else event.key
    value = edited if edited is not None else event.original
    if report.topic in REFERENCE_MODELS:
        partition: int | None = 0
    else:
        partition = None if own_key is not None and is_e164(own_key.decode("utf-8", "replace")) else report.partition
    return Replay(event, settings.topic(report.topic), partition, own_key, value, _fault(report.topic, own_key, value))


def _fault(topic: str, key: bytes | None, value: bytes | None) -> InputError | None:
    if value is None and topic in REFERENCE_MODELS and key is not None:
        return None
    try:
        read_event(topic, key, value)
    except InputError as error:
        return error
    return None


async def replay(planned: Replay, publish: Publish) -> str:
    """Publish an event again. Returns where it is, as ``TOPIC PARTITION@OFFSET``.

    Raises:
        DeliveryFailed: the broker did not acknowledge it.
    """
    sent = await publish(planned.topic, planned.partition, planned.key, planned.value)
    return f"{sent.topic} {sent.partition}@{sent.offset}"
