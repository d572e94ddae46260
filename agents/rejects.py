"""Records that are no valid events: what goes to rejected-events."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from config.settings import Settings
from rules.errors import InputError
from rules.events import MAX_RECORD_BYTES, REFERENCE_MODELS
from rules.instants import format_instant
from streams.partitioner import partition_of
from streams.publisher import Output
from streams.topics import REJECTED
from streams.trace_context import context_of

_MAX_KEY_BYTES = 1024  # a key is a number or an id; a longer one would make the rejected record too large to publish

_encode = msgspec.json.Encoder().encode


def rejection(settings: Settings, record: Any, topic: str, error: InputError, now: int) -> Output:  # aiokafka's record
    """The rejected-events record for a Kafka record that cannot be used; it carries that one's trace context.

    It goes to the partition of the record; of reference topics, which have but one, to that of the key.

    Args:
        settings: names of topics, and how many partitions they have.
        record: the Kafka record.
        topic: its topic, name without prefix.
        error: what is wrong with it.
        now: instant of the rejection.
    """
    raw = record.value or b""
    key = record.key[:_MAX_KEY_BYTES] if record.key is not None else None
    event: dict[str, object] = {
        "topic": topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": key.decode("utf-8", "replace") if key is not None else None,
        "rejected_at": format_instant(now),
        "error": {"code": error.code, "field": error.field, "message": error.message},
        "value": base64.b64encode(raw[:MAX_RECORD_BYTES]).decode() if record.value is not None else None,
    }
    if len(raw) > MAX_RECORD_BYTES:
        event["truncated"] = True
    home = partition_of(key or b"", settings.partitions) if topic in REFERENCE_MODELS else record.partition
    return Output(settings.topic(REJECTED), home, key, _encode(event), context_of(record.headers))
