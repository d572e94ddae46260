"""What ``ringfence rejected`` and ``ringfence quarantine`` print and ask; the work is done by ``ops.rejected`` and ``ops.quarantine``.

A finding, or something that could not be done, ends them with exit code 1; what makes no sense, with 2.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import typer
from rich.text import Text

from config.settings import Settings
from ops import quarantine as numbers
from ops.options import EXIT_FINDINGS, settings_from_environment
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


# --- rejected -------------------------------------------------------------------------------------------------------------------


def list_rejected(*, topic: str | None, code: str | None, since: str | None, limit: int, json_output: bool) -> None:
    """Print the rejected events that were meant, newest first."""
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


def show_rejected(event_id: str, *, unmasked: bool, raw: bool, json_output: bool) -> None:
    """Print one rejected event."""
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


def replay_rejected(
    event_ids: list[str], *, topic: str | None, code: str | None, edited: Path | None, key: str | None, force: bool, yes: bool
) -> None:
    """Publish rejected events again and say where they are."""
    settings = settings_from_environment()
    if bool(event_ids) == bool(topic or code):
        raise typer.BadParameter("give IDs, or --topic and --code", param_hint="ID")
    if (edited is not None or key is not None) and len(event_ids) != 1:
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


def list_suspended(*, scan: bool, unmasked: bool, json_output: bool) -> None:
    """Print the numbers that are suspended; exit code 1 if that could not be confirmed."""
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


def release_numbers(number: list[str], *, by: str, reason: str, wait: bool, force: bool) -> None:
    """Release numbers; exit code 1 if one of them is not released."""
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
