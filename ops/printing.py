"""Tables and remarks: on a terminal folded to its width, over a pipe one line an entry, aligned and uncut."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

# Below this many columns the last two columns of a table share one: beside each other neither would have room for its longest word.
WIDE_COLUMNS = 130
# Wider than any row: over a pipe nothing folds.
UNFOLDED_COLUMNS = 10_000


def print_content(content: RenderableType) -> None:
    """Print to the terminal's width, or to a pipe without folding and without blanks at the end of a line."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(content)
        return
    unfolded = Console(highlight=False, width=UNFOLDED_COLUMNS)
    with unfolded.capture() as capture:
        unfolded.print(content)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def is_narrow() -> bool:
    """Whether tables are printed on a terminal on which the last two columns share one."""
    console = Console()
    return console.is_terminal and console.width < WIDE_COLUMNS


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Text]], *, main: str) -> None:
    """Print rows as a table; on a narrow terminal the last two columns share one, with the column ``main`` on top."""
    stacked = is_narrow()
    if stacked:
        top, under = (-1, -2) if headings[-1] == main else (-2, -1)
        headings = (*headings[:-2], f"{main}, {headings[under]}")
        rows = [(*row[:-2], Text("\n").join(part for part in (row[top], row[under]) if part)) for row in rows]
    table = Table(*headings, box=box.SIMPLE_HEAD if Console().is_terminal else None, pad_edge=False, show_edge=False)
    for position, column in enumerate(table.columns):
        column.overflow = "fold"
        column.no_wrap = position < len(headings) - (1 if stacked else 2)
    for row in rows:
        table.add_row(*row)
    print_content(table)


def note(text: str) -> None:
    """A remark beside the output, on stderr, so that a pipe carries entries only."""
    Console(stderr=True, highlight=False).print(Text(text, style="dim"), soft_wrap=True)
