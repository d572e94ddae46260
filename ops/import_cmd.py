"""What ``ringfence import`` says while it works, and at its end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ops.bulk import progress as kept
from ops.bulk.columns import fields_of
from ops.bulk.rows import Source, format_of
from ops.bulk.run import Import
from ops.client_log import client_silenced
from ops.options import EXIT_CANNOT_START, EXIT_FINDINGS, EXIT_INTERRUPTED, settings_from_environment
from ops.printing import note
from rules.errors import CannotStart, DeliveryFailed
from rules.events import FACT_MODELS, REFERENCE_MODELS

_SAY_EVERY_S = 5.0
#: Topics in which a person may ask not to be called.
_MAY_STOP = frozenset({"objections", "consents", "call-outcomes"})


def import_file(
    path: Path,
    *,
    topic: str | None,
    file_format: str | None,
    columns: list[str],
    constants: list[str],
    left_out: list[str],
    bad: Path | None,
    restart: bool,
    dry_run: bool,
    json_output: bool,
) -> None:
    """Import a file; exit code 1 if a row could not be used, 3 if the broker does not take the rows."""
    settings = settings_from_environment()
    source = _source(path, topic, file_format, columns, constants, left_out)
    aside = bad or path.with_name(f"{path.name}.bad.jsonl")
    work = Import(settings, source, aside, restart=restart, dry_run=dry_run)
    if work.resumed_after:
        note(f"goes on after line {work.resumed_after:,}; --restart begins anew")
    started, before = monotonic(), work.progress.published
    try:
        with client_silenced(), _Bar() as bar:
            asyncio.run(work.run(bar.show))
    except KeyboardInterrupt:
        note(f"interrupted after line {work.progress.line:,}{'' if dry_run else '; the same command goes on from there'}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except DeliveryFailed as error:
        note(f"Kafka at {settings.kafka} (RINGFENCE_KAFKA) does not take the rows: {error}")
        note(f"{work.progress.published:,} are published, up to line {work.progress.line:,}; the same command goes on from there")
        raise typer.Exit(EXIT_CANNOT_START) from None
    except OSError as error:  # the side file, or where the progress is kept
        raise CannotStart(f"the import cannot go on: {error}") from None
    progress, seconds = work.progress, monotonic() - started
    if json_output:
        said = {"topic": progress.topic, "good": progress.published, "bad": progress.bad, "published": not dry_run}
        print(json.dumps(said | {"bad_file": str(aside) if progress.bad else None, "seconds": round(seconds, 1)}))
    else:
        did = "could be published" if dry_run else "published"
        rate = (progress.published - before) / max(seconds, 0.001)
        print(f"{progress.published:,} {did} to {progress.topic} in {seconds:.1f} s, {rate:,.0f} a second")
        if progress.bad:
            print(f"{progress.bad:,} cannot be used; why stands in {aside}")
    if progress.bad:
        if source.topic in _MAY_STOP:
            note("an objection or a withdrawal may be among them: those people may be called until the rows are repaired and imported")
        raise typer.Exit(EXIT_FINDINGS)


def _source(
    path: Path, topic: str | None, file_format: str | None, columns: list[str], constants: list[str], left_out: list[str]
) -> Source:
    name = topic or path.name.split(".")[0]
    known = {**FACT_MODELS, **REFERENCE_MODELS}
    if name not in known:
        raise typer.BadParameter(f"want one of {', '.join(known)}", param_hint="--topic")
    fields = fields_of(name)
    given, same = _pairs(columns, "--column", fields), _pairs(constants, "--set", fields)
    source = Source(path, name, format_of(path, file_format), given, same, frozenset(left_out))
    for field, text in source.constants.items():
        try:
            fields[field](text)
        except ValueError as error:
            raise typer.BadParameter(f"{field}: {error}", param_hint="--set") from None
    return source


def _pairs(given: list[str], option: str, fields: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for one in given:
        field, equals, text = one.partition("=")
        if not equals or field not in fields:
            raise typer.BadParameter(f"want FIELD=... with one of {', '.join(fields)}", param_hint=option)
        pairs[field] = text
    return pairs


class _Bar:
    """A bar on a terminal; over a pipe a line every few seconds."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=self._console, transient=True, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("reading", total=None)
        self._said = monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: kept.Progress, read: int, size: int) -> None:
        """Show how far it is."""
        text = f"{progress.published:,} rows" + (f", {progress.bad:,} bad" if progress.bad else "")
        self._progress.update(self._task, completed=read, total=max(size, read), description=text)
        if not self._console.is_terminal and monotonic() - self._said >= _SAY_EVERY_S:
            self._said = monotonic()
            sys.stderr.write(f"{text}, {read / max(size, 1):.0%} of the file\n")
