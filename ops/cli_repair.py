"""``ringfence rejected`` and ``ringfence quarantine``: for records that cannot be used and numbers that they suspend.

The words of the commands; what they do stands in ``ops.repair_cmd``, which imports the clients of Kafka and Redis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops.options import Json, Unmasked

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
    from ops import repair_cmd

    repair_cmd.list_rejected(topic=topic, code=code, since=since, limit=limit, json_output=json_output)


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
    from ops import repair_cmd

    repair_cmd.show_rejected(event_id, unmasked=unmasked, raw=raw, json_output=json_output)


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
    from ops import repair_cmd

    repair_cmd.replay_rejected(event_ids or [], topic=topic, code=code, edited=edited, key=key, force=force, yes=yes)


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
    from ops import repair_cmd

    repair_cmd.list_suspended(scan=scan, unmasked=unmasked, json_output=json_output)


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
    from ops import repair_cmd

    repair_cmd.release_numbers(number, by=by, reason=reason, wait=wait, force=force)
