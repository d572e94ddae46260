"""Records that are no valid events: what goes to rejected-events."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from rules.errors import InputError
from rules.events import MAX_RECORD_BYTES
from rules.instants import format_instant

_MAX_KEY_BYTES = 1024  # a key is a number or an id; a longer one would make the rejected record too large to publish

_encode = msgspec.json.Encoder().encode


def rejected_event(record: Any, topic: str, error: InputError, now: int) -> tuple[bytes | None, bytes]:  # aiokafka's record
    """Key and value of the rejected-events record for a Kafka record that cannot be used.

    Args:
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
    return key, _encode(event)
