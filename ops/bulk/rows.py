"""The rows of a file, one by one: CSV, JSON lines or Parquet.

Memory does not grow with the file. A row that cannot be read is told of, and the rows behind it are read all the same.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import typer

from ops.bulk.columns import fields_of, from_text, from_values
from rules.errors import CannotStart, InputError
from rules.events import MAX_RECORD_BYTES, parse_json

Format = Literal["csv", "jsonl", "parquet"]
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_BATCH_ROWS = 2_000


class Row(NamedTuple):
    """One row: its number from 1 (in JSON lines and CSV the line at which it ends), how far the file is read, and what it says.

    ``read`` counts bytes, of a Parquet file rows. ``raw`` is the row as it stands there; ``event`` what it says, None with a ``fault``.
    """

    line: int
    read: int
    raw: Any
    event: dict[str, Any] | None
    fault: InputError | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file of facts.

    ``columns`` gives the column of a field where that is not its own name; ``constants`` the text of fields that are the same in every
    row and stand in no column; ``left_out`` are columns that are no field. Any other column that is no field is refused: it may be the
    misspelt end of a consent.
    """

    path: Path
    topic: str
    format: Format
    columns: Mapping[str, str]
    constants: Mapping[str, str]
    left_out: frozenset[str] = frozenset()

    @contextmanager
    def opened(self) -> Iterator[tuple[int, Iterator[Row]]]:
        """The size of the file, in the units of ``Row.read``, and its rows.

        Raises:
            CannotStart: the file cannot be read at all.
        """
        try:
            if self.format == "parquet":
                yield self._parquet()
                return
            with self.path.open("rb") as file:
                yield self.path.stat().st_size, (self._json_lines if self.format == "jsonl" else self._csv)(file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CannotStart(f"{self.path}: {error}") from None

    def _json_lines(self, file: BinaryIO) -> Iterator[Row]:
        constants = from_text(self.constants, fields_of(self.topic))
        line, read = 0, 0
        while raw := file.readline(2 * MAX_RECORD_BYTES):
            line, read = line + 1, read + len(raw)
            text = raw.strip()
            if not text:
                continue
            try:
                event = self._named(parse_json(text))
            except InputError as error:
                yield Row(line, read, text.decode("utf-8", "replace"), None, error)
            else:
                yield Row(line, read, event, constants | event)

    def _named(self, value: Any) -> dict[str, Any]:
        """A JSON object under the names of the contract.

        Raises:
            InputError: it is no object.
        """
        if not isinstance(value, dict):
            raise InputError("type", "", "want a JSON object")
        named = {name: one for name, one in value.items() if name not in self.left_out}
        return named | {field: named.pop(column) for field, column in self.columns.items() if column in named}

    def _csv(self, file: BinaryIO) -> Iterator[Row]:
        fields = fields_of(self.topic)
        counted = _Counted(file)
        first = next(counted, None)
        if first is None:
            return
        delimiter = max(",;\t", key=first.count)
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
        paths = self._paths(names, fields)
        csv.field_size_limit(2 * MAX_RECORD_BYTES)
        reader = csv.reader(counted, delimiter=delimiter)
        for cells in reader:
            if not any(cells):
                continue
            raw = dict(zip(names, cells, strict=False))
            line = reader.line_num + 1
            if len(cells) > len(names):
                yield Row(line, counted.read, raw, None, InputError("format", "", f"{len(cells)} cells under {len(names)} columns"))
                continue
            given = {path: cell for path, cell in zip(paths, cells, strict=False) if path is not None}
            try:
                yield Row(line, counted.read, raw, from_text({**self.constants, **given}, fields))
            except InputError as error:
                yield Row(line, counted.read, raw, None, error)

    def _parquet(self) -> tuple[int, Iterator[Row]]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise CannotStart('Parquet needs pyarrow: pip install "ringfence[parquet]"') from None
        try:
            table = ParquetFile(self.path)
        except ArrowException as error:
            raise CannotStart(f"{self.path} is no Parquet file: {error}") from None
        fields = fields_of(self.topic)
        paths = self._paths(table.schema_arrow.names, {*fields, *(path.split(".")[0] for path in fields)})
        constants = from_text(self.constants, fields)

        def rows() -> Iterator[Row]:
            line = 0
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                for raw in batch.to_pylist():
                    line += 1
                    given = {path: value for path, value in zip(paths, raw.values(), strict=True) if path is not None}
                    yield Row(line, line, raw, constants | from_values(given))

        return table.metadata.num_rows, rows()

    def _paths(self, names: list[str], known: Collection[str]) -> list[str | None]:
        """Of each column its field; None for one that is left out, or whose field has another column.

        Raises:
            CannotStart: a column that is no field, or that stands there twice, or a field without its column.
        """
        taken = {column: field for field, column in self.columns.items()}
        lacking = [column for column in (*taken, *self.left_out) if column not in names]
        unknown = [name for name in names if name not in taken and name not in self.left_out and name not in known]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if lacking or unknown or twice:
            said = [f"no column {name!r}" for name in lacking] + [f"column {name!r} is no field of {self.topic}" for name in unknown]
            said += [f"column {name!r} stands there twice" for name in twice]
            raise CannotStart(
                f"{self.path}: {'; '.join(said)}. Say --column FIELD=COLUMN for a field under another name, --leave-out COLUMN for one "
                f"that is not wanted. Columns: {', '.join(names)}. Fields: {', '.join(sorted(known))}"
            )
        overridden = {*self.columns, *self.left_out}
        return [taken.get(name, None if name in overridden else name) for name in names]


class _Counted:
    """The lines of a file as text, with a count of the bytes that have been read. A byte order mark at the beginning is left out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        text = raw.decode("utf-8-sig" if self.read == 0 else "utf-8")
        self.read += len(raw)
        return text


def format_of(path: Path, given: str | None) -> Format:
    """The format of a file, as said or by its name.

    Raises:
        typer.BadParameter: neither says.
    """
    found = given or _SUFFIXES.get(path.suffix.lower())
    if found not in _SUFFIXES.values():
        raise typer.BadParameter("want csv, jsonl or parquet, or a file name that ends so", param_hint="--format")
    return found  # type: ignore[return-value]  # one of the literals, as was just looked up
