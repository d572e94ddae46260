"""``ringfence rejected`` and ``ringfence quarantine``: for records that cannot be used and numbers that they suspend."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from config.settings import Settings
from ops import quarantine as numbers
from ops.options import EXIT_FINDINGS, Json, Unmasked, settings_from_environment
from ops.printing import is_narrow, note, print_table
from ops.rejected import Filters, Found, NotReplayable, Rejected, Replay, find, find_ids, parse_id, plan, printable, replay, shown_value
from ops.topic_log import opened, publishing
from rules.e164 import is_e164, masked
from rules.errors import DeliveryFailed, InputError, StateError
from rules.instants import format_instant, parse_instant
from streams.state import Store
from streams.topics import REJECTED

_ALL = sys.maxsize
_WAIT_S = 10.0

rejected = typer.Typer(name="rejected", help="Records that could not be used: list, show, publish again.", no_args_is_help=True)
quarantine = typer.Typer(name="quarantine", help="Numbers that are suspended: list, release.", no_args_is_help=True)

Topic = Annotated[str | None, typer.Option("--topic", help="Of this topic, without prefix: objections")]
Code = Annotated[str | None, typer.Option("--code", help="With this error code: json, missing, format, ...")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


# --- rejected -------------------------------------------------------------------------------------------------------------------


@rejected.command("list")
def list_rejected(
    topic: Topic = None,
    code: Code = None,
    since: Annotated[str | None, typer.Option("--since", help="Rejected at this instant or later: 2026-11-23T13:00:00Z")] = None,
    limit: Annotated[int, typer.Option("--limit", help="The newest so many.", min=1)] = 50,
    json_output: Json = False,
) -> None:
    """List rejected events, newest first.

    Example: ringfence rejected list --topic objections
    """
    filters = Filters(topic, code, _instant(since, "--since"))
    found = asyncio.run(_find(settings_from_environment(), filters, limit))
    if json_output:
        events = [event.as_json() for event in found.newest]
        print(json.dumps({"events": events, "matching": found.matching, "unreadable": found.unreadable}, indent=2))
        return
    if found.newest:
        _print_events(found.newest)
    left_out = f", the newest {len(found.newest)} shown" if found.matching > len(found.newest) else ""
    note(f"{_counted(found.matching, 'rejected event')}{left_out}; one in full: ringfence rejected show ID")
    if found.unreadable:
        note(f"{_counted(found.unreadable, 'record')} of {REJECTED} that no guard wrote")


@rejected.command("show")
def show_rejected(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="As listed: PARTITION@OFFSET")],
    unmasked: Unmasked = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the original bytes alone, as they are, numbers included.")] = False,
    json_output: Json = False,
) -> None:
    """Show one rejected event with its original bytes; whatever may be a number is masked.

    Example: ringfence rejected show 3@17
    """
    event = asyncio.run(_find_ids(settings_from_environment(), [event_id]))[0]
    if raw:
        sys.stdout.buffer.write(event.original or b"")
        sys.stdout.flush()
        return
    encoding, value = shown_value(event.original, unmasked=unmasked)
    if json_output:
        print(json.dumps({**event.as_json(unmasked=unmasked), "encoding": encoding, "value": value}, indent=2))
        return
    report = event.report
    where = f" in {report.error.field}" if report.error.field else ""
    size = "" if event.original is None else f", {'the first ' if report.truncated else ''}{len(event.original)} bytes"
    for label, text in (
        ("id", event.id),
        ("rejected", report.rejected_at),
        ("from", f"{report.topic} {event.source}"),
        ("key", event.shown_key(unmasked=unmasked)),
        ("error", f"{report.error.code}{where}: {report.error.message}"),
        ("value", encoding + size),
    ):
        print(f"{label:<9}{printable(text)}")
    if value is not None:
        print(f"\n{printable(value)}")


@rejected.command("replay")
def replay_rejected(
    event_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As listed: PARTITION@OFFSET")] = None,
    topic: Topic = None,
    code: Code = None,
    edited: Annotated[
        Path | None, typer.Option("--edited", help="File with the repaired bytes of the one ID.", exists=True, dir_okay=False)
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Another key for the one ID, where its own was wrong.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Publish repaired bytes that are still broken.")] = False,
    yes: Yes = False,
) -> None:
    """Publish rejected events again, to their own topics.

    The original bytes under the original key, or repaired ones. Nothing is taken out of rejected-events.

    Example: ringfence rejected show 3@17 --raw > event.json, repair it, then ringfence rejected replay 3@17 --edited event.json
    """
    settings = settings_from_environment()
    if bool(event_ids) == bool(topic or code):
        raise typer.BadParameter("give IDs, or --topic and --code", param_hint="ID")
    if (edited is not None or key is not None) and len(event_ids or ()) != 1:
        raise typer.BadParameter("want exactly one ID with --edited and --key", param_hint="ID")
    if event_ids:
        events = asyncio.run(_find_ids(settings, event_ids))
    else:
        events = asyncio.run(_find(settings, Filters(topic, code), _ALL)).newest[::-1]
    planned, refused = _planned(events, settings, edited.read_bytes() if edited is not None else None, key)
    if edited is not None and planned and planned[0].fault is not None and not force:
        note(f"{planned[0].event.id}: still broken: {_said(planned[0].fault)}; nothing published (--force publishes it)")
        raise typer.Exit(EXIT_FINDINGS)
    if planned:
        _confirmed(f"Publish {len(planned)} of {_counted(len(events), 'event')} again?", yes=yes)
    undelivered = asyncio.run(_replay(settings, planned))
    print(f"{_counted(len(planned) - undelivered, 'event')} published again")
    if refused or undelivered:
        raise typer.Exit(EXIT_FINDINGS)


def _planned(events: list[Rejected], settings: Settings, edited: bytes | None, key: str | None) -> tuple[list[Replay], int]:
    """How events are to be published again, and how many cannot be."""
    planned, refused = list[Replay](), 0
    for event in events:
        try:
            planned.append(plan(event, settings, edited, key))
        except NotReplayable as reason:
            note(str(reason))
            refused += 1
    return planned, refused


async def _replay(settings: Settings, planned: list[Replay]) -> int:
    """Publish events again and say where they are. Returns how many the broker did not take."""
    undelivered = 0
    if planned:
        async with publishing(settings) as publish:
            for one in planned:
                try:
                    place = await replay(one, publish)
                except DeliveryFailed as error:
                    note(f"{one.event.id}: {error}")
                    undelivered += 1
                else:
                    still = f"  (will be rejected again: {_said(one.fault)})" if one.fault is not None else ""
                    print(f"{one.event.id} -> {place}{still}")
    return undelivered


async def _find(settings: Settings, filters: Filters, limit: int) -> Found:
    async with opened(settings, REJECTED) as log:
        return await find(log, filters, limit)


async def _find_ids(settings: Settings, ids: list[str]) -> list[Rejected]:
    """Events by their ids, each once; all of them, or none."""
    try:
        places = list(dict.fromkeys(map(parse_id, ids)))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="ID") from None
    async with opened(settings, REJECTED) as log:
        events, lacking = await find_ids(log, places)
    if lacking:
        note(f"not in {settings.topic(REJECTED)}: {', '.join(lacking)}")
        raise typer.Exit(EXIT_FINDINGS)
    return events


def _print_events(events: list[Rejected]) -> None:
    rows = [
        (
            event.id,
            event.report.rejected_at[:19].replace("T", " "),
            event.shown_key(),
            f"{printable(event.report.topic)} {event.source}",
            printable(event.report.error.code),
            printable(event.report.error.field),
            printable(event.report.error.message),
        )
        for event in events
    ]
    if is_narrow():  # the message would have no room beside the rest
        stacked = [
            (*map(Text, row[:2]), Text(row[2], style="dim"), Text("\n".join((row[3], " ".join(row[4:6]), row[6])))) for row in rows
        ]
        print_table(("id", "rejected", "key", "from, error"), stacked, main="from, error")
    else:
        print_table(
            ("id", "rejected", "key", "from", "code", "field", "message"), [tuple(map(Text, row)) for row in rows], main="message"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _said(fault: InputError) -> str:
    return f"{fault.code}, {fault}"


# --- quarantine -----------------------------------------------------------------------------------------------------------------


@quarantine.command("list")
def list_suspended(
    scan: Annotated[bool, typer.Option("--scan", help="Look at the states of all numbers, not only at what was rejected.")] = False,
    unmasked: Unmasked = False,
    json_output: Json = False,
) -> None:
    """List the numbers that are suspended now, and the rejected events that did it; longest suspended first.

    Example: ringfence quarantine list
    """
    listing = asyncio.run(_suspended(settings_from_environment(), scan=scan))
    if json_output:
        suspended = [one.as_json(unmasked=unmasked) for one in listing.suspended]
        print(json.dumps({"suspended": suspended, "trouble": listing.trouble}, indent=2))
    else:
        if listing.suspended:
            _print_suspended(listing.suspended, unmasked=unmasked)
        head = f"{_counted(len(listing.suspended), 'number')} {'perhaps ' if listing.trouble else ''}suspended"
        note(f"{head}; why: ringfence rejected show ID")
    if listing.trouble:
        note(f"not confirmed, released ones may be among them: {listing.trouble}")
        raise typer.Exit(EXIT_FINDINGS)


@quarantine.command("release")
def release_numbers(
    number: Annotated[list[str], typer.Argument(metavar="NUMBER...", help="In E.164 form: +31612345678")],
    by: Annotated[str, typer.Option("--by", help="Who releases it.")],
    reason: Annotated[str, typer.Option("--reason", help="What was found, and what was done about it.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait up to 10 s until the guard's state shows it.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Release it although it is not suspended, or nobody can say.")] = False,
) -> None:
    """Release suspended numbers, so that their requests are decided again.

    Publish the objection that was meant first (ringfence rejected replay): a release lifts every suspension before it.

    Example: ringfence quarantine release +31612345678 --by m.jansen --reason "objection repaired, sent again as 3@17"
    """
    for position, one in enumerate(number, 1):
        if not is_e164(one):
            raise typer.BadParameter(f"argument {position} is not E.164: want a plus sign and 7 to 15 digits", param_hint="NUMBER")
    for option, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise typer.BadParameter("want a text", param_hint=option)
    try:
        done = asyncio.run(_release(settings_from_environment(), list(dict.fromkeys(number)), by, reason, wait=wait, force=force))
    except (StateError, DeliveryFailed, InputError) as error:
        note(str(error))
        done = False
    if not done:
        raise typer.Exit(EXIT_FINDINGS)


async def _suspended(settings: Settings, *, scan: bool) -> numbers.Listing:
    store = Store(settings)
    try:
        async with opened(settings, REJECTED) as log:
            return await numbers.suspended_now(log, store, scan=scan)
    finally:
        await store.close()


async def _release(settings: Settings, asked: list[str], by: str, reason: str, *, wait: bool, force: bool) -> bool:
    """Release numbers and say what became of each. Returns whether all are released."""
    store = Store(settings)
    try:
        async with opened(settings, numbers.RELEASES) as log:
            partitions = log.partitions
        suspended = asked if force else [one for one in asked if await numbers.is_suspended(store, one, partitions)]
        for one in asked:
            if one not in suspended:
                print(f"{masked(one)} is not suspended; nothing published (--force publishes a release)")
        if not suspended:
            return False
        releases = []
        async with publishing(settings) as publish:
            for one in suspended:
                releases.append(await numbers.release(settings, publish, one, by, reason))
                print(f"{masked(one)} -> {releases[-1].place}")
        return len(suspended) == len(asked) and (not wait or await _shown(store, releases, partitions))
    finally:
        await store.close()


async def _shown(store: Store, releases: list[numbers.Release], partitions: int) -> bool:
    """Wait for the guard and say what its state shows. Returns whether every number is released."""
    shown = await numbers.applied(store, releases, partitions, _WAIT_S)
    for number, suspended in shown.items():
        if suspended is None:
            print(f"{masked(number)}: the guard has not taken the release in within {_WAIT_S:g} s; it will when it runs")
        elif suspended:
            print(f"{masked(number)} was released, and is suspended again by a broken event that came later")
        else:
            print(f"{masked(number)} is released")
    return all(suspended is False for suspended in shown.values())


def _print_suspended(suspended: list[numbers.Suspended], *, unmasked: bool) -> None:
    print_table(
        ("number", "since", "event", "more", "topic", "code"),
        [
            (
                Text(one.number if unmasked else masked(one.number), style="bold"),
                Text(format_instant(one.since_ms * 1000)[:19].replace("T", " ")),
                Text(one.causes[-1].id if one.causes else "-"),
                Text(str(len(one.causes) - 1) if len(one.causes) > 1 else ""),
                Text(one.causes[-1].topic if one.causes else f"no longer in {REJECTED}"),
                Text(one.causes[-1].code if one.causes else ""),
            )
            for one in suspended
        ],
        main="topic",
    )


# --- shared ---------------------------------------------------------------------------------------------------------------------


def _instant(text: str | None, option: str) -> int | None:
    try:
        return None if text is None else parse_instant(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _confirmed(question: str, *, yes: bool) -> None:
    """Ask on a terminal; without one, refuse unless told beforehand."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody can be asked without a terminal: say --yes", param_hint="--yes")
    typer.confirm(question, abort=True)
