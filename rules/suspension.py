"""Which numbers a record that cannot be read suspends (wire contract, rejected-events).

A broken objection never lets a call through: any rejected record of objections or consents, or of call-outcomes that may be
``objected``, suspends every valid number in its key and in its number field.
"""

from __future__ import annotations

import re
from typing import Any

from rules.e164 import is_e164
from rules.errors import InputError
from rules.events import parse_json

_ALWAYS_SUSPENDING = frozenset({"objections", "consents"})
_HARMLESS_RESULTS = frozenset({"connected", "no_answer", "busy", "not_interested", "abandoned", "silent"})

# Found in the bytes rather than in a parsed object, because the record may be no JSON, or hold the field twice.
_NUMBER_FIELD = re.compile(rb'"number"\s*:\s*("(?:[^"\\]|\\.){7,96}")')


def suspended_numbers(topic: str, key: bytes | None, raw: bytes | None) -> set[str]:
    """The numbers that a rejected record suspends; none for a topic whose records cannot be objections.

    Args:
        topic: where it stood, name without prefix.
        key: the record's key.
        raw: the record's value, whatever it is.
    """
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
