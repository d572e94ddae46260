"""How the columns of a table become the fields of an event.

A column is named for its field; a field within another stands behind a dot (``evidence.uri``). Cells of text become what the field
wants: ``true`` and ``false``, whole numbers, and lists with ``|`` between their entries. An empty cell is a field that is not there.
Nothing is guessed beyond that: numbers and instants are read by the contract's model like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from rules.errors import InputError
from rules.events import MODELS

LIST_SEPARATOR = "|"
_TRUTH = {"true": True, "false": False}

Convert = Callable[[str], Any]


def fields_of(topic: str) -> dict[str, Convert]:
    """Every field of a topic's records by its path, with what reads its text.

    A reader raises ValueError for a text that it cannot read.
    """
    return dict(_walk(MODELS[topic], ""))


def _walk(model: type[BaseModel], prefix: str) -> Iterable[tuple[str, Convert]]:
    for name, field in model.model_fields.items():
        kind = _kind(field.annotation, field.metadata)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _walk(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, _READERS.get(kind, str)


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> Any:
    """What a field holds, without ``None`` and annotations; ``str`` where the model reads a text itself."""
    if any(isinstance(one, BeforeValidator) for one in metadata):
        return str
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, more)
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [one for one in get_args(annotation) if one is not type(None)]
        return _kind(annotation)
    return get_origin(annotation) or annotation


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError("want true or false") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("want a whole number") from None


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("want a number like 0.03") from None


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(LIST_SEPARATOR)]


_READERS: dict[Any, Convert] = {bool: _truth, int: _whole, float: _fraction, list: _entries}


def from_text(cells: Mapping[str, str], fields: Mapping[str, Convert]) -> dict[str, Any]:
    """The event of a row of texts, by path.

    Raises:
        InputError: code ``type`` for a cell that cannot be read as its field.
    """
    event: dict[str, Any] = {}
    for path, text in cells.items():
        stripped = text.strip()
        if not stripped:
            continue
        try:
            _put(event, path, fields[path](stripped))
        except ValueError as error:
            raise InputError("type", path, str(error)) from None
    return event


def from_values(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The event of a row of typed values, by path: nulls are left out, times and dates become texts as the contract wants them."""
    event: dict[str, Any] = {}
    for path, value in cells.items():
        plain = _plain(value)
        if plain is not None:
            _put(event, path, plain)
    return event


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        # A time without zone stays without an offset, and is refused by the model: nobody knows whose clock it is.
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: plain for name, one in value.items() if (plain := _plain(one)) is not None}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def _put(event: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for one in above:
        event = event.setdefault(one, {})
    event[name] = value
