"""The offline door: decide about the lines of a file, each with its own facts, through the same code as the stream.

A line is ``{"case": any, "facts": [{"topic", "value"}, ...], "request": {...}}``. Facts are applied in the order given and lines share
no state. ``now`` is the request's dial_at. A line that cannot be read whole gives an error that names the field, never a decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import msgspec

from rules.decide import decide, refuse
from rules.decision import Decision
from rules.errors import InputError
from rules.events import (
    FACT_MODELS,
    MAX_RECORD_BYTES,
    REFERENCE_MODELS,
    REQUEST_TOPIC,
    NumberEvent,
    Record,
    ReferenceEntry,
    check_key,
    parse_json,
    validate,
)
from rules.facts import NumberFacts
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import Rulebook

#: A line above this many bytes is refused without being held in memory whole.
MAX_LINE_BYTES = 16 * 1024 * 1024

_encode = msgspec.json.Encoder().encode


def decide_lines(source: BinaryIO, book: Rulebook) -> Iterator[tuple[bytes, bool]]:
    """Decide about every line of a file; blank lines are passed over.

    Yields:
        One JSON line (without its end) and whether it is a decision; False means an error.
    """
    for raw in _lines(source):
        if raw is None:
            yield _error(None, InputError("too_large", "", f"a line has more than {MAX_LINE_BYTES} bytes")), False
        elif raw.strip():
            yield decide_line(raw, book)


class _Case(msgspec.Struct):
    """The part of a line that is copied as it was written."""

    case: msgspec.Raw = msgspec.Raw(b"null")  # immutable


_decode_case = msgspec.json.Decoder(_Case).decode


def decide_line(raw: bytes, book: Rulebook) -> tuple[bytes, bool]:
    """Decide about one line. Returns the JSON to print and whether it is a decision."""
    case = None
    try:
        line = _object(parse_json(raw), "")
        case = _decode_case(raw).case
        decision = _decide(line, book)
    except InputError as error:
        return _error(case, error), False
    return _encode({"case": case, **msgspec.structs.asdict(decision)}), True


def _decide(line: dict[str, Any], book: Rulebook) -> Decision:
    numbers: dict[str, NumberFacts] = {}
    reference = Reference()
    for position, fact in enumerate(_items(line)):
        path = f"facts.{position}"
        _apply(_object(fact, path), path, numbers, reference)
    request = cast("CallRequest", _read(REQUEST_TOPIC, _required(line, "request", ""), "request"))
    facts = numbers.get(request.number, NumberFacts())
    try:
        return decide(request, facts, reference, book, now=request.dial_at)
    except Exception:  # noqa: BLE001  # as on the stream: whatever a rule breaks on, the answer is no
        return refuse(request, book, "S_STATE_UNAVAILABLE", now=request.dial_at)


def _items(line: dict[str, Any]) -> list[Any]:
    facts = _required(line, "facts", "")
    if not isinstance(facts, list):
        raise InputError("type", "facts", "want a list")
    return facts


def _apply(fact: dict[str, Any], path: str, numbers: dict[str, NumberFacts], reference: Reference) -> None:
    topic = _required(fact, "topic", path)
    if not isinstance(topic, str):
        raise InputError("type", f"{path}.topic", "want the name of a topic")
    if topic not in FACT_MODELS and topic not in REFERENCE_MODELS:
        raise InputError("unknown_topic", f"{path}.topic", "no fact topic of this name; see docs/contract.md")
    key = fact.get("key")
    if key is not None and not isinstance(key, str):
        raise InputError("type", f"{path}.key", "want text")
    if "value" not in fact:
        raise InputError("missing", f"{path}.value", "required")
    if fact["value"] is None:
        _remove(topic, key, path, reference)
        return
    record = _read(topic, fact["value"], f"{path}.value")
    if key is not None:
        try:
            check_key(topic, record, key.encode())
        except InputError as error:
            raise InputError(error.code, f"{path}.key", "the key and the value disagree") from None
    if topic in REFERENCE_MODELS:
        reference.put(topic, cast("ReferenceEntry", record))
    else:
        event = cast("NumberEvent", record)
        numbers.setdefault(event.number, NumberFacts()).apply(event)


def _remove(topic: str, key: str | None, path: str, reference: Reference) -> None:
    if topic not in REFERENCE_MODELS:
        raise InputError("null_value", f"{path}.value", "only reference topics know a null, which removes an entry")
    if key is None:
        raise InputError("missing", f"{path}.key", "required: the entry that the null removes")
    reference.remove(topic, key)


def _read(topic: str, value: object, path: str) -> Record | CallRequest:
    try:
        record = validate(topic, value)
    except InputError as error:
        raise InputError(error.code, f"{path}.{error.field}" if error.field else path, error.message) from None
    if len(_encode(value)) > MAX_RECORD_BYTES:
        raise InputError("too_large", path, f"more than {MAX_RECORD_BYTES} bytes")
    return record


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("type", path, "want a JSON object")
    return value


def _required(container: dict[str, Any], name: str, path: str) -> Any:  # JSON is any value
    value = container.get(name)
    if value is None:
        raise InputError("missing", f"{path}.{name}" if path else name, "required")
    return value


def _error(case: object, error: InputError) -> bytes:
    return _encode({"case": case, "error": {"code": error.code, "field": error.field, "message": error.message}})


def _lines(source: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long to be read."""
    while line := source.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = source.readline(MAX_LINE_BYTES)
        yield None
