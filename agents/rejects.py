"""Records that are no valid events: what goes to rejected-events, and which numbers they suspend.

A broken objection never lets a call through: any rejected record of objections or consents, or of call-outcomes that may be
``objected``, suspends every valid number in its key and in its number field.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from rules.e164 import is_e164
from rules.errors import InputError
from rules.events import MAX_RECORD_BYTES, parse_json
from rules.instants import format_instant

_ALWAYS_SUSPENDING = frozenset({"objections", "consents"})
_HARMLESS_RESULTS = frozenset({"connected", "no_answer", "busy", "not_interested", "abandoned", "silent"})
_MAX_KEY_BYTES = 1024  # a key is a number or an id; a longer one would make the rejected record too large to publish

# Found in the bytes rather than in a parsed object, because the record may be no JSON, or hold the field twice.
_NUMBER_FIELD = re.compile(rb'"number"\s*:\s*("(?:[^"\\]|\\.){7,96}")')

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


def suspended_numbers(topic: str, key: bytes | None, raw: bytes | None) -> set[str]:
    """The numbers that a rejected record suspends; none for a topic whose records cannot be objections."""
    if topic not in _ALWAYS_SUSPENDING and not (topic == "call-outcomes" and _may_be_objected(raw)):
        return set()
    texts = [_parsed(literal) for literal in _NUMBER_FIELD.findall(raw or b"")]
    value = _parsed(raw)
    texts += [value.get("number") if isinstance(value, dict) else None, (key or b"").decode("utf-8", "replace")]
    return {text for text in texts if isinstance(text, str) and is_e164(text)}


def _parsed(raw: bytes | None) -> Any:
    """A JSON value, None if it is none."""
    try:
        return parse_json(raw or b"")
    except InputError:
        return None


def _may_be_objected(raw: bytes | None) -> bool:
    """Whether an outcome that was rejected may have been an objection: unless its result can be read and is another one."""
    value = _parsed(raw)
    result = value.get("result") if isinstance(value, dict) else None
    return not (isinstance(result, str) and result in _HARMLESS_RESULTS)
