"""What ``ringfence explain`` asks and prints."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from config.settings import Settings
from ops.audit.reading import check_topics
from ops.client_log import client_silenced
from ops.explain.catalogue import LANGUAGES
from ops.explain.explanation import Explanation
from ops.explain.places import Place, parse_place
from ops.explain.run import explained
from ops.explain.search import Tell
from ops.explain.terminal import print_explanation
from ops.explain.wording import worded
from ops.options import EXIT_FINDINGS, settings_from_environment
from ops.printing import note
from rules.e164 import is_e164
from rules.errors import CannotStart, StateError
from rules.instants import parse_instant


def explain_request(
    request_id: str, *, number: str | None, at: str | None, since: str | None, lang: str, unmasked: bool, json_output: bool
) -> None:
    """Print why a request was answered as it was; exit code 1 if there is no such decision, or the facts give another."""
    if lang not in LANGUAGES:
        raise typer.BadParameter(f"want one of {', '.join(LANGUAGES)}", param_hint="--lang")
    if number is not None and not is_e164(number):
        raise typer.BadParameter("want a plus sign and 7 to 15 digits, like +31612345678", param_hint="--number")
    try:
        place = None if at is None else parse_place(at)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None
    try:
        since_ms = 0 if since is None else max(0, parse_instant(since) // 1000)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    explanation = asyncio.run(_explained(settings_from_environment(), request_id, number, place, since_ms))
    if explanation is None:
        where = f" at {place}" if place is not None else " of this number" if number is not None else ""
        note(f"no decision of this request{where}" + (f" since {since}" if since is not None else ""))
        raise typer.Exit(EXIT_FINDINGS)
    told = worded(explanation, lang, unmasked=unmasked)
    if json_output:
        print(json.dumps(told, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))
    else:
        print_explanation(told)
    if explanation.difference is not None:
        raise typer.Exit(EXIT_FINDINGS)


async def _explained(settings: Settings, request_id: str, number: str | None, at: Place | None, since_ms: int) -> Explanation | None:
    await check_topics(settings)
    try:
        with client_silenced(), _progress() as tell:
            return await explained(settings, request_id, number=number, at=at, since_ms=since_ms, tell=tell)
    except StateError as error:
        raise CannotStart(f"Kafka at {settings.kafka} (RINGFENCE_KAFKA) cannot be read: {error}") from None


@contextmanager
def _progress() -> Iterator[Tell]:
    """A line on standard error, if that is a terminal. Yields what is told how far the reading is."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking", total=None)
        yield lambda what, records: progress.update(task, description=f"reading {what}: {records:,}")
