"""``ringfence rules``: the rulebook as people read it, with its history and sources.

On a terminal a listing is a table that folds to the terminal's width (80 columns are enough); over a pipe it is one line an
entry, aligned and uncut, for ``grep`` and ``less -S``. ``json_output`` gives the same content to programs.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict
from datetime import date, time
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ops.printing import note, print_content, print_table
from rules.rulebook import Dated, Hours, Rule, Rulebook, Source

SEVERITY_STYLE = {"LAW": "bold red", "CODE": "yellow", "POLICY": "cyan"}


def list_rules(book: Rulebook, *, json_output: bool) -> None:
    """Print every period of every rule, in the order of the rulebook."""
    if json_output:
        _print_json({"rulebook": book.version, "regimes": _regimes(book), "rules": [_rule_json(rule) for rule in book.rules]})
        return
    # The codes come before the summary, which is the longest, so that a piped line ends with it.
    print_table(
        ("id", "severity", "from", "until", "gives", "summary"),
        [
            (
                Text(rule.id, style="bold"),
                _severity(rule.severity),
                Text(str(rule.first_day)),
                Text(str(rule.last_day or "")),
                Text(" ".join(rule.gives), style="dim"),
                Text(rule.summary),
            )
            for rule in book.rules
        ],
        main="summary",
    )
    count = len({rule.id for rule in book.rules})
    note(f"{count} rules of {book.version}; one in full: ringfence rules R-14; values: ringfence rules --parameters")


def list_parameters(book: Rulebook, *, json_output: bool) -> None:
    """Print every value that every parameter has had, with its sources, in the order of the rulebook."""
    if json_output:
        histories = {name: [_dated_json(entry) for entry in history] for name, history in book.parameters.items()}
        _print_json({"rulebook": book.version, "parameters": histories})
        return
    print_table(
        ("parameter", "severity", "from", "value", "source"),
        [
            (
                Text(name, style="bold"),
                _severity(entry.severity),
                Text(str(entry.first_day)),
                Text(_value(entry.value)),
                Text("; ".join(f"{source.level} {source.ref}" for source in entry.sources), style="dim"),
            )
            for name, history in book.parameters.items()
            for entry in history
        ],
        main="value",
    )
    note(f"{len(book.parameters)} parameters of {book.version}; each value holds until the next one of its name")


def show_rule(book: Rulebook, rule_id: str, *, json_output: bool) -> bool:
    """Print one rule with all its periods and sources.

    Args:
        book: the rulebook in use, overrides included.
        rule_id: as in the rulebook (``R-14``), in either case.
        json_output: print an object instead of text.

    Returns:
        Whether the rulebook has the rule; if not, near ids are named on stderr and nothing is on stdout.
    """
    wanted = rule_id.upper()
    periods = [rule for rule in book.rules if rule.id == wanted]
    if not periods:
        ids = list(dict.fromkeys(rule.id for rule in book.rules))
        near = difflib.get_close_matches(wanted, ids, n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        note(f"no rule {rule_id} in {book.version}; {hint}ringfence rules lists all")
        return False
    if json_output:
        _print_json({"rulebook": book.version, "id": wanted, "periods": [_rule_json(rule) for rule in periods]})
        return True
    print_content(Group(Text.assemble((wanted, "bold"), f"  {book.version}"), *(_period(rule) for rule in periods)))
    return True


def _period(rule: Rule) -> Group:
    """One period as a block: dates, what it says, what it gives, where that was read."""
    until = f"until {rule.last_day}" if rule.last_day else "in force"
    facts = [("gives", " ".join(rule.gives) or "no code; it only sorts or explains")]
    if rule.first_day_members:
        facts.insert(0, ("members", f"from {rule.first_day_members}"))
    if rule.natural_persons_only:
        facts.append(("callees", "natural persons only"))
    facts += [("source" if position == 0 else "", _source(source)) for position, source in enumerate(rule.sources)]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, value in facts:
        grid.add_row(Text(label), Text(value))
    head = Text.assemble((f"from {rule.first_day}, {until}", "bold"), "  ", _severity(rule.severity))
    return Group(Text(), head, Padding(Text(rule.summary), (0, 0, 0, 2)), Padding(grid, (0, 0, 0, 2)))


def _source(source: Source) -> str:
    return f"{source.level}  {source.ref} (checked {source.checked})"


def _severity(severity: str) -> Text:
    return Text(severity, style=SEVERITY_STYLE[severity])


def _value(value: object) -> str:
    """A parameter's value as people write it: days of a year as MM-DD, hours as a span."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Hours):
        return f"{value.opens:%H:%M}-{value.closes:%H:%M}"
    if isinstance(value, time):
        return f"{value:%H:%M}"
    if isinstance(value, tuple):
        return "{:02}-{:02}".format(*value)
    if isinstance(value, frozenset):
        return " ".join(_value(item) for item in _sorted(value)) or "none"
    return str(value)


def _sorted(values: frozenset[Any]) -> list[Any]:
    """In a reader's order: articles 3, 9, 27b."""
    return sorted(values, key=lambda value: (len(value), value) if isinstance(value, str) else value)


# --- JSON ---------------------------------------------------------------------------------------------------


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    """What JSON has no word for, outside the values of parameters."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Source):
        return asdict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _data(value: object) -> object:
    """A parameter's value in the shape that a rulebook file gives it."""
    if isinstance(value, Hours):
        return {"opens": _value(value.opens), "closes": _value(value.closes)}
    if isinstance(value, frozenset):
        return [_data(item) for item in _sorted(value)]
    if isinstance(value, tuple | time):
        return _value(value)
    return value


def _regimes(book: Rulebook) -> list[dict[str, object]]:
    return [{"name": name, "from": first_day} for first_day, name in book.regimes]


def _rule_json(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "summary": rule.summary,
        "severity": rule.severity,
        "from": rule.first_day,
        "until": rule.last_day,
        "from_members": rule.first_day_members,
        "natural_persons_only": rule.natural_persons_only,
        "gives": rule.gives,
        "sources": rule.sources,
    }


def _dated_json(entry: Dated) -> dict[str, object]:
    return {"from": entry.first_day, "value": _data(entry.value), "severity": entry.severity, "sources": entry.sources}
