"""The words of an explanation, by language: ``texts/en.toml`` and ``texts/nl.toml``."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rules.instants import AMSTERDAM, parse_instant
from rules.rulebook import Rule

TEXTS = Path(__file__).with_name("texts")
LANGUAGES = ("en", "nl")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CodeText(NamedTuple):
    """What is said of a code: a short name, what it means here, and what would have to change."""

    name: str
    meaning: str
    remedy: str


class Catalogue:
    """The words of one language."""

    def __init__(self, lang: str, texts: Mapping[str, Any]) -> None:
        self.lang = lang
        self._texts = texts

    def code(self, code: str, values: Mapping[str, str]) -> CodeText:
        """The texts of a code, filled in."""
        entry = self._texts["codes"][code]
        return CodeText(*(_filled(entry[field], values) for field in CodeText._fields))

    def phrase(self, name: str, /, **values: str) -> str:
        """A phrase or a heading, filled in."""
        return _filled(self._texts["phrases"][name], values)

    def note(self, name: str, /, **values: str) -> str:
        """What is said of something that could not be told."""
        return _filled(self._texts["notes"][name], values)

    def term(self, table: str, name: str) -> str:
        """A term of a table (``topics``, ``fields``, ``values``, ``regimes``, ``levels``, ``severities``), or the word itself."""
        return str(self._texts[table].get(name, name.replace("_", " ")))

    def title(self, rule: Rule) -> str:
        """What a rule says. A period that says something else than the newest one has a title with its first day."""
        titles: Mapping[str, str] = self._texts["rules"]
        return titles.get(f"{rule.id} {rule.first_day}") or titles.get(rule.id) or rule.summary

    def day(self, ordinal: int) -> str:
        """A calendar day: 3 March 2026."""
        return self._day(datetime.fromordinal(ordinal))

    def moment(self, instant: int | str) -> str:
        """Day and time of an instant in Europe/Amsterdam: 3 March 2026, 14:05."""
        local = _local(instant)
        return f"{self._day(local)}, {local:%H:%M}"

    def weekday(self, instant: int | str) -> str:
        """Weekday and day of an instant in Europe/Amsterdam: Monday 3 March 2026."""
        local = _local(instant)
        return f"{self._texts['weekdays'][local.weekday()]} {self._day(local)}"

    def joined(self, items: list[str]) -> str:
        """A list in running text: 3, 9 and 27b."""
        return f"{', '.join(items[:-1])} {self.phrase('and')} {items[-1]}" if len(items) > 1 else "".join(items)

    def _day(self, local: datetime) -> str:
        return f"{local.day} {self._texts['months'][local.month - 1]} {local.year}"


@cache
def catalogue(lang: str) -> Catalogue:
    """The words of a language.

    Raises:
        ValueError: there are none in this language.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"no texts in this language; there are {', '.join(LANGUAGES)}")
    return Catalogue(lang, tomllib.loads((TEXTS / f"{lang}.toml").read_text(encoding="utf-8")))


def clock(instant: int | str) -> str:
    """The time of day of an instant in Europe/Amsterdam: 14:05."""
    return f"{_local(instant):%H:%M}"


def _local(instant: int | str) -> datetime:
    moment = parse_instant(instant) if isinstance(instant, str) else instant
    return (_EPOCH + timedelta(microseconds=moment)).astimezone(AMSTERDAM)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A text with its ``{names}`` replaced; one that nobody knows here becomes an ellipsis."""
    return string.Formatter().vformat(text, (), _Known(values))


class _Known(dict[str, str]):
    def __missing__(self, _name: str) -> str:
        return "…"
