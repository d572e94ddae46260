"""Read a dated rulebook (TOML) into the types of :mod:`rules.rulebook`, and refuse whatever is not exactly right.

A rulebook decides what may be dialled, so nothing in it is guessed: an unknown key, a missing source, a value of another shape
or periods that overlap stop the start with :class:`~rules.errors.RulebookInvalid`, which names file, table, key and remedy. The
shape of a file is told at the top of ``rulebooks/nl.toml``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, time
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

from rules.codes import ALL_CODES
from rules.errors import RulebookInvalid
from rules.rulebook import Dated, Hours, Level, Parameters, Regime, Rule, Rulebook, Severity, Source

RULEBOOKS = Path(__file__).with_name("rulebooks")

# Bounds every count and term. It is a day in seconds, the longest delay that makes sense, and as months (7,200 years) still leads
# to a date that ``datetime`` can hold, so that no value can make a rule fail in the middle of a decision.
WHOLE_MAX = 86_400

Convert = Callable[[object], Any]


# --- Values: each converter takes what TOML gave and returns our type, or raises Unfit -------------------------------------


class Unfit(Exception):
    """A value has the wrong shape; ``want`` says which one is right. The table that holds it makes a RulebookInvalid of it."""

    def __init__(self, want: str) -> None:
        super().__init__(want)
        self.want = want


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unfit("a text that is not empty")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise Unfit("true or false, without quotes")
    return value


def _day(value: object) -> date:
    # A datetime is a date to isinstance, but a law starts on a day.
    if type(value) is not date:
        raise Unfit("a day like 2026-07-01, without quotes or time")
    return value


def _whole(least: int) -> Convert:
    def convert(value: object) -> int:
        if type(value) is not int or not least <= value <= WHOLE_MAX:
            raise Unfit(f"a whole number from {least} to {WHOLE_MAX}, without quotes")
        return value

    return convert


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Unfit("a share between 0 and 1, like 0.03")
    return float(value)


def _clock(value: object) -> time:
    if not isinstance(value, str) or not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise Unfit('a time of day like "18:30"')
    return time.fromisoformat(value)


def _hours(value: object) -> Hours:
    want = Unfit('hours like { opens = "09:00", closes = "22:00" }, opening before they close')
    if not isinstance(value, dict) or value.keys() != {"opens", "closes"}:
        raise want
    hours = Hours(_clock(value["opens"]), _clock(value["closes"]))
    if hours.opens >= hours.closes:
        raise want
    return hours


def _day_of_year(value: object) -> tuple[int, int]:
    want = Unfit('a day of the year like "05-04" (month-day)')
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{2}-[0-9]{2}", value):
        raise want
    month, day = int(value[:2]), int(value[3:])
    try:
        date(2024, month, day)  # a leap year, so that 02-29 is a day
    except ValueError:
        raise want from None
    return month, day


def _one_of(names: tuple[str, ...], want: str | None = None) -> Convert:
    def convert(value: object) -> object:
        if value not in names:
            raise Unfit(want or f"one of {', '.join(names)}")
        return value

    return convert


def _list_of(convert: Convert) -> Convert:
    def convert_all(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Unfit("a list, in [ ]")
        items = []
        for item in value:
            try:
                items.append(convert(item))
            except Unfit as unfit:
                raise Unfit(f"{unfit.want} in place of {_shown(item)}") from None
        if len(set(items)) < len(items):
            raise Unfit("each entry once")
        return tuple(items)

    return convert_all


def _set_of(convert: Convert) -> Convert:
    listed = _list_of(convert)
    return lambda value: frozenset(listed(value))


def _rule_id(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]-[0-9]{2}", value):
        raise Unfit('an id like "R-14"')
    return value


# The shape of a parameter's value follows from its type in ``Parameters``; a field of a new type needs one line here.
BY_TYPE: dict[object, Convert] = {
    bool: _truth,
    int: _whole(0),
    float: _share,
    date: _day,
    time: _clock,
    Hours: _hours,
    tuple[int, int]: _day_of_year,
    frozenset[tuple[int, int]]: _set_of(_day_of_year),
    frozenset[date]: _set_of(_day),
    frozenset[int]: _set_of(_whole(-366)),  # days from Easter
    frozenset[str]: _set_of(_text),
}
PARAMETERS: dict[str, Convert] = {name: BY_TYPE[hint] for name, hint in get_type_hints(Parameters).items()}


# --- Tables: which keys they have, and where they stand --------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A table of a file, as messages name it."""

    file: str
    table: str = ""

    def refuse(self, problem: str, remedy: str) -> NoReturn:
        """Raise RulebookInvalid with file, table, problem and remedy."""
        raise RulebookInvalid(f"{self.file}: {self.table + ': ' if self.table else ''}{problem}; {remedy}")

    def inner(self, table: str) -> Place:
        """A table inside this one."""
        return Place(self.file, f"{self.table}, {table}" if self.table else table)


def _near(name: str, known: Iterable[str]) -> str:
    """Remedy for a name that nobody knows: the likeliest one meant, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"remove it or use one of {', '.join(known)}"


REQUIRED = object()


def _read(raw: object, place: Place, keys: Mapping[str, tuple[Convert, object]]) -> dict[str, Any]:
    """Convert one table.

    Args:
        raw: what TOML gave.
        place: the table, for messages.
        keys: key -> (converter, default); ``REQUIRED`` stands for no default.

    Returns:
        A value for each of ``keys``.

    Raises:
        RulebookInvalid: not a table, unknown or missing key, or a value that its converter does not take.
    """
    if not isinstance(raw, dict):
        place.refuse(f"want a table, got {_shown(raw)}", "write it with its keys, as in rulebooks/nl.toml")
    for key in raw:
        if key not in keys:
            place.refuse(f"unknown key {key}", _near(key, keys))
    values = {}
    for key, (convert, default) in keys.items():
        if key not in raw:
            if default is REQUIRED:
                place.refuse(f"key {key} is missing", "add it, as in rulebooks/nl.toml")
            values[key] = default
            continue
        try:
            values[key] = convert(raw[key])
        except Unfit as unfit:
            place.refuse(f"key {key} is {_shown(raw[key])}", f"write {unfit.want}")
    return values


def _shown(value: object) -> str:
    """A value as a message shows it; law is no personal data, but a file may hold anything, so it is cut."""
    return textwrap.shorten(str(value) if isinstance(value, date | time) else repr(value), 60, placeholder="...")


def _tables(raw: object, place: Place) -> list[object]:
    if not isinstance(raw, list) or not raw:
        place.refuse("want at least one entry", "write each under a heading of its own, in double brackets")
    return raw


SOURCE: dict[str, tuple[Convert, object]] = {
    "ref": (_text, REQUIRED),
    "level": (_one_of(get_args(Level)), REQUIRED),
    "checked": (_day, REQUIRED),
}


def _sources(raw: object, place: Place) -> tuple[Source, ...]:
    if raw == []:
        place.refuse("no source", "say where it was read, with ref, level and checked")
    return tuple(Source(**_read(entry, place.inner("source"), SOURCE)) for entry in _tables(raw, place.inner("source")))


def _as_is(value: object) -> object:
    return value


SEVERITY = _one_of(get_args(Severity))
RULE: dict[str, tuple[Convert, object]] = {
    "id": (_rule_id, REQUIRED),
    "summary": (_text, REQUIRED),
    "severity": (SEVERITY, REQUIRED),
    "gives": (_list_of(_one_of(ALL_CODES, "a decision code of rules/codes.py")), REQUIRED),
    "from": (_day, REQUIRED),
    "until": (_day, None),
    "from_members": (_day, None),
    "natural_persons_only": (_truth, False),
    "source": (_as_is, REQUIRED),
}
REGIME: dict[str, tuple[Convert, object]] = {"name": (_one_of(get_args(Regime)), REQUIRED), "from": (_day, REQUIRED)}
VALUE: dict[str, tuple[Convert, object]] = {
    "from": (_day, REQUIRED),
    "severity": (SEVERITY, REQUIRED),
    "source": (_as_is, REQUIRED),
}
OVERRIDE: dict[str, tuple[Convert, object]] = {"from": (_day, REQUIRED), "source": (_as_is, None)}
BOOK: dict[str, tuple[Convert, object]] = dict.fromkeys(("regime", "rule", "parameter"), (_as_is, REQUIRED))
OVERRIDES: dict[str, tuple[Convert, object]] = {"parameter": (_as_is, REQUIRED)}


# --- The parts of a book ----------------------------------------------------------------------------------------------------


def _regimes(raw: object, place: Place) -> tuple[tuple[date, Regime], ...]:
    entries = [_read(entry, place, REGIME) for entry in _tables(raw, place)]
    names = tuple(entry["name"] for entry in entries)
    if names != get_args(Regime):
        place.refuse(f"{', '.join(names)} leave a gap", f"list {', '.join(get_args(Regime))}, each once, in this order")
    for before, after in pairwise(entries):
        if after["from"] <= before["from"]:
            place.refuse(f"{after['name']} does not start after {before['name']}", "one lasts until the next one's first day")
    return tuple((entry["from"], entry["name"]) for entry in entries)


def _rule(raw: object, place: Place, first_day: date) -> Rule:
    """One period of a rule; ``first_day`` is that of the first regime, before which no call is judged."""
    entry = _read(raw, place, RULE)
    rule = Rule(
        id=entry["id"],
        summary=entry["summary"],
        severity=entry["severity"],
        gives=entry["gives"],
        first_day=entry["from"],
        last_day=entry["until"],
        first_day_members=entry["from_members"],
        natural_persons_only=entry["natural_persons_only"],
        sources=_sources(entry["source"], place),
    )
    if rule.first_day_members and rule.first_day_members >= rule.first_day:
        place.refuse(
            f"from_members {rule.first_day_members} is not before from {rule.first_day}", "leave it out or give the earlier day"
        )
    if _starts(rule) < first_day:
        place.refuse(f"starts on {_starts(rule)}, before the first regime", f"start it on {first_day}, where judging starts")
    if rule.last_day and rule.last_day < rule.first_day:
        place.refuse(f"until {rule.last_day} is before from {rule.first_day}", "until is the last day on which the rule binds")
    return rule


def _starts(rule: Rule) -> date:
    """The first day on which the period binds anybody."""
    return rule.first_day_members or rule.first_day


def _rules(raw: object, file: Place, first_day: date) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    latest: dict[str, Rule] = {}
    for position, entry in enumerate(_tables(raw, file.inner("[[rule]]")), start=1):
        label = entry.get("id", "") if isinstance(entry, dict) else ""
        place = file.inner(f"[[rule]] {label} (entry {position})" if label else f"[[rule]] entry {position}")
        rule = _rule(entry, place, first_day)
        before = latest.get(rule.id)
        if before and before.first_day >= rule.first_day:
            place.refuse(f"starts on {rule.first_day}, not after the entry before it", "list the periods of a rule oldest first")
        if before and (before.last_day is None or before.last_day >= _starts(rule)):
            place.refuse(
                f"overlaps the period that starts on {before.first_day}",
                f"end that one with until, on the day before {_starts(rule)} at the latest",
            )
        latest[rule.id] = rule
        rules.append(rule)
    return tuple(rules)


def _history(raw: object, place: Place, name: str, keys: Mapping[str, tuple[Convert, object]]) -> tuple[Dated, ...]:
    """The dated values of one parameter, oldest first; ``keys`` are those beside ``value`` (``VALUE`` or ``OVERRIDE``)."""
    history: list[Dated] = []
    for raw_entry in _tables(raw, place):
        entry = _read(raw_entry, place, {**keys, "value": (PARAMETERS[name], REQUIRED)})
        first = entry["from"]
        if history and first <= history[-1].first_day:
            place.refuse(f"the value of {first} comes after that of {history[-1].first_day}", "list the values oldest first, one a day")
        # Which file an override was in is left out: the digest tells what the law is, not what somebody called a file.
        operator = (Source("override of the operator", "V4", first),)
        sources = operator if entry["source"] is None else _sources(entry["source"], place)
        history.append(Dated(first, entry["value"], entry.get("severity", "POLICY"), sources))
    return tuple(history)


def _named(raw: object, file: Place) -> dict[str, tuple[object, Place]]:
    """The parameters of a file by name, each with its place."""
    if not isinstance(raw, dict):
        file.refuse("parameter is no table", "write each value under [[parameter.NAME]]")
    for name in raw:
        if name not in PARAMETERS:
            file.refuse(f"unknown parameter {name}", _near(name, PARAMETERS))
    return {name: (entries, file.inner(f"[[parameter.{name}]]")) for name, entries in raw.items()}


def _parameters(raw: object, file: Place, first_day: date) -> dict[str, tuple[Dated, ...]]:
    named = _named(raw, file)
    histories = {}
    for name in PARAMETERS:
        if name not in named:
            file.refuse(f"parameter {name} is missing", f"add [[parameter.{name}]] with from = {first_day}")
        entries, place = named[name]
        histories[name] = _history(entries, place, name, VALUE)
        starts = histories[name][0].first_day
        if starts != first_day:
            place.refuse(f"starts on {starts}, the first regime on {first_day}", f"give it a value from {first_day} on")
    return histories


def _overridden(base: dict[str, tuple[Dated, ...]], path: Path, first_day: date) -> dict[str, tuple[Dated, ...]]:
    """``base`` with an operator's values: they replace, from the first override's day on, whatever the rulebook says.

    Values before that day stay, so that older decisions replay as they were.
    """
    file = Place(str(path))
    histories = dict(base)
    raw = _read(_toml(path), file, OVERRIDES)["parameter"]
    for name, (entries, place) in _named(raw, file).items():
        added = _history(entries, place, name, OVERRIDE)
        starts = added[0].first_day
        if starts < first_day:
            place.refuse(f"starts on {starts}, before the first regime", f"start it on {first_day} or later")
        histories[name] = (*(entry for entry in base[name] if entry.first_day < starts), *added)
    return histories


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        Place(str(path)).refuse(f"cannot be read ({error.strerror})", "give the path of a TOML file that this user may read")
    except ValueError as error:  # bad UTF-8 and bad TOML alike
        Place(str(path)).refuse(f"is not TOML ({error})", "repair it at that place")


def _digest(regimes: object, rules: Iterable[Rule], parameters: Mapping[str, tuple[Dated, ...]]) -> str:
    """First 16 hex digits of the SHA-256 of the content, whatever its order and comments in the file."""

    def plain(value: object) -> object:
        return sorted(value) if isinstance(value, frozenset) else str(value)

    content = {
        "regimes": regimes,
        "rules": [asdict(rule) for rule in sorted(rules, key=lambda rule: (rule.id, rule.first_day))],
        "parameters": {name: [asdict(entry) for entry in history] for name, history in parameters.items()},
    }
    canonical = json.dumps(content, default=plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def read_rulebook(path: Path, overrides: Path | None = None) -> Rulebook:
    """Read the rulebook of one file; its name is the file's, without the suffix.

    Args:
        path: a TOML file as ``rulebooks/nl.toml``.
        overrides: a TOML file of ``[[parameter.NAME]]`` entries with ``from`` and ``value`` (``source`` if there is one), which
            replace the values from their day on and count as POLICY.

    Raises:
        RulebookInvalid: either file cannot be read or is not exactly right.
    """
    file = Place(str(path))
    raw = _read(_toml(path), file, BOOK)
    regimes = _regimes(raw["regime"], file.inner("[[regime]]"))
    first_day = regimes[0][0]
    rules = _rules(raw["rule"], file, first_day)
    parameters = _parameters(raw["parameter"], file, first_day)
    if overrides is not None:
        parameters = _overridden(parameters, overrides, first_day)
    return Rulebook(path.stem, _digest(regimes, rules, parameters), regimes, rules, parameters)


def load_rulebook(name: str = "nl", overrides: Path | None = None) -> Rulebook:
    """Read the rulebook called ``name`` that ringfence brings along.

    Args:
        name: a jurisdiction, ``nl``.
        overrides: see :func:`read_rulebook`.

    Raises:
        RulebookInvalid: there is no such rulebook, or a file is not exactly right.
    """
    known = sorted(path.stem for path in RULEBOOKS.glob("*.toml"))
    if name not in known:
        raise RulebookInvalid(f"{name}: no such rulebook; {_near(name, known)}")
    return read_rulebook(RULEBOOKS / f"{name}.toml", overrides)
