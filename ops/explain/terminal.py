"""An explanation on a terminal, folded to its width; over a pipe one line a paragraph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ops.printing import print_content
from ops.rejected import printable
from ops.rules_cmd import SEVERITY_STYLE

_OUTCOME_STYLE = {"approved": "bold green", "blocked": "bold red", "recalled": "bold red"}
_INDENT = (0, 0, 0, 2)


def print_explanation(told: dict[str, Any]) -> None:
    """Print an explanation.

    Args:
        told: as ``Explanation.as_json`` makes it.
    """
    print_content(Group(*_everything(told)))


def _everything(told: dict[str, Any]) -> Iterator[RenderableType]:
    labels = told["labels"]
    yield Text.assemble((printable(told["request_id"]), "bold"), "  ", (told["headline"], _OUTCOME_STYLE[told["outcome"]]))
    yield Text()
    yield _pairs(_head(told))
    for recall in told["recalls"]:
        yield from _account(recall, labels, labels["recalls"])
    decided = told["decided"]
    yield from _account(decided, labels, labels["recalls" if decided["kind"] == "recall" else "reasons"])


def _head(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    labels, decided = told["labels"], told["decided"]
    yield labels["number"], told["number"]
    yield from ((labels[party["role"]], party["shown"]) for party in told["parties"])
    yield labels["campaign"], told["campaign_id"]
    yield labels["dial_at"], told["dial_at"]["on"]
    yield labels["decided_at"], decided["decided_at"]["on"]
    if told["valid_until"] is not None:
        yield labels["valid_until"], told["valid_until"]["on"]
    if told["regime"] is not None:
        yield labels["regime"], told["regime"]["shown"]
    yield labels["rulebook"], decided["rulebook"]
    yield labels["record"], decided["at"]
    check = told["check"]
    yield labels["check"], check["text"] + (f" [{check['difference']}]" if check["difference"] else "")
    if told["others"]:
        yield labels["others"], ", ".join(told["others"])


def _account(account: dict[str, Any], labels: dict[str, str], reasons: str) -> Iterator[RenderableType]:
    for note in account["notes"]:
        yield Text()
        yield Text(note["text"], style="yellow")
    headings = {"reason": reasons, "basis": labels["basis"], "warning": labels["warnings"]}
    heading = None
    for position, point in enumerate(account["points"], 1):
        if headings[point["kind"]] != heading:
            heading = headings[point["kind"]]
            yield Text()
            yield Text(f"{heading} ({account['at']})" if account["kind"] == "recall" else heading, style="bold underline")
        yield Text()
        yield Text.assemble((f"{position}. {point['name']}", "bold"), "  ", (point["code"], "dim"))
        yield Padding(Group(*_point(point, labels)), _INDENT)


def _point(point: dict[str, Any], labels: dict[str, str]) -> Iterator[RenderableType]:
    yield Text(printable(point["meaning"]))
    for rule in point["rules"]:
        yield Text.assemble(
            f"{labels['rules']} ",
            (rule["id"], "bold"),
            ", ",
            (rule["severity_text"], SEVERITY_STYLE[rule["severity"]]),
            f": {rule['title']}",
        )
        for source in rule["sources"]:
            yield Padding(Text(f"{source['level']} {source['ref']} ({source['level_text']})", style="dim"), _INDENT)
    if point["facts"]:
        yield Text(labels["facts"])
        yield from (Padding(Text(printable(_fact(fact))), _INDENT) for fact in point["facts"])
    if point["looked_at"]:
        looked = [printable(f"{one['source_text']} {one['id']}, {one['label']}: {one['value']}") for one in point["looked_at"]]
        yield Text(labels["looked_at"])
        yield from (Padding(Text(one), _INDENT) for one in looked)
    remedy = labels["remedy_basis" if point["kind"] == "basis" else "remedy"]
    yield Text.assemble((f"{remedy}: ", "bold"), printable(point["remedy"]))


def _fact(fact: dict[str, Any]) -> str:
    """A fact on one line: what, which, when, and all that it states."""
    details = "; ".join(f"{detail['label']}: {detail['value']}" for detail in fact["details"])
    head = f"{fact['title']} {fact['event_id'] or fact['place']}, {fact['on'] or fact['in_log_since']}"
    return f"{head} ({details})" if details else head


def _pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", overflow="fold")
    grid.add_column(overflow="fold")
    for label, value in pairs:
        grid.add_row(Text(label), Text(printable(value)))
    return grid
