"""The ``ringfence`` command. Exit codes: 0 done or stopped by SIGTERM, 1 findings, 2 usage, 3 cannot start, 130 Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import structlog
import typer

from config.rulebook import load_rulebook
from config.settings import Settings
from ops.cli_repair import quarantine, rejected
from ops.door import decide_lines
from ops.masking import MaskingFormatter, mask_numbers
from ops.options import EXIT_CANNOT_START, EXIT_FINDINGS, EXIT_INTERRUPTED, EXIT_USAGE, Json, Unmasked, settings_from_environment
from ops.ready_file import why_not_ready
from ops.rules_cmd import list_parameters, list_rules, show_rule
from rules.errors import CannotStart, RulebookInvalid

app = typer.Typer(
    help="A streaming compliance guard for outbound calls: every call request gets one lawful decision, with its reasons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rejected)
app.add_typer(quarantine)

Overrides = Annotated[Path | None, typer.Option("--overrides", help="TOML file with the operator's own parameter values.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ringfence {version('ringfence')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and end.")
    ] = False,
) -> None:
    pass


@app.command()
def decide(
    file: Annotated[Path, typer.Argument(help="JSON lines {case, facts, request}; - for standard input.", allow_dash=True)],
    overrides: Overrides = None,
) -> None:
    """Decide about the lines of a file, offline, by the same code as the stream.

    Prints one decision a line; a line that cannot be read gives an error that names the field, and exit code 1 at the end.

    Example: ringfence decide tests/cases.jsonl
    """
    book = load_rulebook(overrides=overrides)
    clean = True
    try:
        source = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None
    write = sys.stdout.buffer.write
    with source:
        for line, is_decision in decide_lines(source, book):
            clean = clean and is_decision
            write(line + b"\n")
    sys.stdout.flush()
    if not clean:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def rules(
    rule_id: Annotated[str | None, typer.Argument(help="One rule, with its sources and history.")] = None,
    parameters: Annotated[bool, typer.Option("--parameters", help="List the parameters instead of the rules.")] = False,
    json_output: Json = False,
    overrides: Overrides = None,
) -> None:
    """List the rules with their dates, or show one.

    Example: ringfence rules C-11
    """
    book = load_rulebook(overrides=overrides)
    if rule_id is not None:
        if not show_rule(book, rule_id, json_output=json_output):
            raise typer.Exit(EXIT_USAGE)
    elif parameters:
        list_parameters(book, json_output=json_output)
    else:
        list_rules(book, json_output=json_output)


@app.command()
def worker() -> None:
    """Run one worker against RINGFENCE_KAFKA and RINGFENCE_REDIS, until Ctrl-C or SIGTERM.

    Example: RINGFENCE_KAFKA=kafka:9092 RINGFENCE_REDIS=redis://redis:6379/0 ringfence worker
    """
    from ops.worker import run_worker  # Faust takes half a second to import

    settings = settings_from_environment()
    _log_as(settings)
    raise typer.Exit(run_worker(settings))


@app.command()
def gateway() -> None:
    """Serve the guard over HTTP at RINGFENCE_GATEWAY (127.0.0.1:8080), until Ctrl-C or SIGTERM.

    Prints `ready URL` when it answers. Keys come from RINGFENCE_API_KEYS or RINGFENCE_API_KEYS_FILE: NAME SCOPE[,SCOPE] SECRET

    Example: RINGFENCE_API_KEYS='dialler dial SECRET-OF-20-CHARACTERS; me operate,report ANOTHER-LONG-SECRET' ringfence gateway
    """
    from ops.gateway.server import run_gateway

    settings = settings_from_environment()
    _log_as(settings)
    raise typer.Exit(run_gateway(settings))


@app.command()
def topics(
    create: Annotated[bool, typer.Option("--create", help="Create what is missing.")] = False,
    json_output: Json = False,
) -> None:
    """Check the topics on the broker, and create those that are missing.

    Exit code 1 if something is wrong with them.

    Example: ringfence topics --create
    """
    from streams.topics import check_topics, ensure_topics

    settings = settings_from_environment()
    created = asyncio.run(ensure_topics(settings)) if create else []
    problems = asyncio.run(check_topics(settings))
    if json_output:
        typer.echo(json.dumps({"created": created, "problems": problems}))
    else:
        for name in created:
            typer.echo(f"created {name}")
        for problem in problems:
            typer.echo(problem, err=True)
        if not problems:
            typer.echo("topics are as they should be")
    if problems:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def up(
    data: Annotated[Path | None, typer.Option("--data", help="Folder that keeps the data; without it nothing is kept.")] = None,
    kafka_port: Annotated[int, typer.Option("--kafka-port", help="0: any free one.", min=0, max=65535)] = 9092,
    redis_port: Annotated[int, typer.Option("--redis-port", help="0: any free one.", min=0, max=65535)] = 6379,
    gateway_port: Annotated[int, typer.Option("--gateway-port", help="0: any free one.", min=0, max=65535)] = 8080,
    no_gateway: Annotated[bool, typer.Option("--no-gateway", help="No HTTP.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=0, max=32)] = 1,
    partitions: Annotated[int, typer.Option("--partitions", help="Of each topic keyed by number.", min=1, max=1000)] = 8,
    clock_start: Annotated[
        str | None, typer.Option("--clock-start", help="The guard's clock starts here and runs on: 2026-11-23T13:00:00Z")
    ] = None,
) -> None:
    """Start a real Kafka, a real Redis, workers and a gateway on this machine, until Ctrl-C or SIGTERM.

    Prints `ready kafka=HOST:PORT redis=URL gateway=URL key=SECRET` when all is ready. The key is made for this run, with every scope,
    unless RINGFENCE_API_KEYS or RINGFENCE_API_KEYS_FILE is set.

    Example: ringfence up --kafka-port 0 --redis-port 0 --gateway-port 0 --workers 2
    """
    from ops.up import UpOptions, run_up

    options = UpOptions(
        data=data, kafka_port=kafka_port, redis_port=redis_port, workers=workers, clock_start=clock_start, partitions=partitions,
        gateway_port=None if no_gateway else gateway_port,
    )  # fmt: skip
    raise typer.Exit(run_up(options))


@app.command()
def demo(
    seconds: Annotated[float, typer.Option("--seconds", help="How long the day runs.", min=1)] = 60,
    forever: Annotated[bool, typer.Option("--forever", help="Run until Ctrl-C.")] = False,
    rate: Annotated[float, typer.Option("--rate", help="Call requests a second.", min=1)] = 300,
    workers: Annotated[int, typer.Option("--workers", min=1, max=32)] = 1,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same day.")] = 1,
) -> None:
    """Run a generated working day through servers of its own and show it live.

    Example: ringfence demo --seconds 20
    """
    from ops.demo import DemoOptions, run_demo

    raise typer.Exit(run_demo(DemoOptions(seconds=seconds, forever=forever, rate=rate, workers=workers, seed=seed)))


@app.command()
def watch(
    seconds: Annotated[float | None, typer.Option("--seconds", help="End after this long.", min=1)] = None,
    json_output: Json = False,
) -> None:
    """Watch the decisions of a running guard (RINGFENCE_KAFKA).

    Example: RINGFENCE_KAFKA=127.0.0.1:9092 ringfence watch
    """
    from ops.watch import run_watch

    raise typer.Exit(run_watch(settings_from_environment(), seconds=seconds, json_output=json_output))


@app.command()
def audit(
    since: Annotated[
        Path | None, typer.Option("--from", help="JSON {topic: {partition: offset}}: judge requests and outputs from there on.")
    ] = None,
    ends: Annotated[Path | None, typer.Option("--ends", help="Write where this audit ended, for the next one's --from.")] = None,
    histories: Annotated[
        Path | None, typer.Option("--histories", help="JSON lines of load clients: when records were sent and acknowledged.")
    ] = None,
    bound_s: Annotated[float, typer.Option("--bound-s", help="How long an answer or a recall may take.", min=0)] = 150,
    tolerance_ms: Annotated[int, typer.Option("--tolerance-ms", help="Log times closer than this do not tell an order.", min=0)] = 100,
    jobs: Annotated[int, typer.Option("--jobs", help="Worker processes; 0: one a processor.", min=0)] = 0,
    show: Annotated[int, typer.Option("--show", help="How many offending records to show.", min=0)] = 20,
    json_output: Json = False,
) -> None:
    """Read all topics of a guard (RINGFENCE_KAFKA) and prove its promises.

    Exit code 1 if one is broken.

    Example: RINGFENCE_KAFKA=127.0.0.1:9092 ringfence audit
    """
    from ops.audit.report import as_json, print_report
    from ops.audit.run import Options, run_audit

    options = Options(bound_s, tolerance_ms, jobs, show, since, ends, histories)
    tally = run_audit(settings_from_environment(), options)
    if json_output:
        typer.echo(json.dumps(as_json(tally, show)))
    else:
        print_report(tally, show)
    if not tally.clean:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def explain(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="As the dialler asked.")],
    number: Annotated[str | None, typer.Option("--number", help="Look in the partition of this number only: +31612345678")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Where the decision stands, if that is known: blocked-3@1234")] = None,
    since: Annotated[str | None, typer.Option("--since", help="In the log since this instant: 2026-11-23T13:00:00Z")] = None,
    lang: Annotated[str, typer.Option("--lang", help="en or nl.")] = "en",
    unmasked: Unmasked = False,
    json_output: Json = False,
) -> None:
    """Explain the newest decision of a request (RINGFENCE_KAFKA): rule by rule, with the facts behind it and what would change it.

    Exit code 1 if there is no such decision, or it is not what its facts give.

    Example: ringfence explain q-1 --lang nl
    """
    from ops.explain.command import explain_request

    explain_request(
        request_id, number=number, at=at, since=since, lang=lang, unmasked=unmasked, json_output=json_output
    )  # fmt: skip


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with a line of headings, JSON lines, or Parquet.", exists=True, dir_okay=False)],
    topic: Annotated[str | None, typer.Option("--topic", help="consents, objections, ..., if the name does not say.")] = None,
    file_format: Annotated[str | None, typer.Option("--format", help="csv, jsonl or parquet, if the name does not say.")] = None,
    column: Annotated[list[str] | None, typer.Option("--column", metavar="FIELD=COLUMN", help="The column of a field.")] = None,
    constant: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=TEXT", help="The same in every row: kind=given")] = None,
    leave_out: Annotated[list[str] | None, typer.Option("--leave-out", metavar="COLUMN", help="A column that is no field.")] = None,
    bad: Annotated[Path | None, typer.Option("--bad", help="Where rows go that cannot be used; else FILE.bad.jsonl")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, not where an earlier run was cut off.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and publish nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Publish the rows of a file as facts (RINGFENCE_KAFKA). Cut off, the same command goes on where it was.

    Exit code 1 if a row could not be used.

    Example: ringfence import objections.csv --column number=phone --leave-out remarks
    """
    from ops.import_cmd import import_file

    import_file(
        file, topic=topic, file_format=file_format, columns=column or [], constants=constant or [], left_out=leave_out or [], bad=bad,
        restart=restart, dry_run=dry_run, json_output=json_output,
    )  # fmt: skip


@app.command()
def contracts(
    folder: Annotated[Path, typer.Argument(help="Is made if it is not there.", file_okay=False)],
) -> None:
    """Write the wire contract for other programs into a folder: an AsyncAPI document, and a JSON Schema a topic.

    Names of topics and counts of partitions are those of the settings (RINGFENCE_TOPIC_PREFIX, RINGFENCE_PARTITIONS).

    Example: ringfence contracts docs/contracts
    """
    from ops.contracts import write

    try:
        files = write(folder, settings_from_environment())
    except OSError as error:
        raise typer.BadParameter(f"{folder}: {error.strerror}", param_hint="FOLDER") from None
    for path in files:
        typer.echo(path)


@app.command()
def ready() -> None:
    """Say whether the worker that writes RINGFENCE_READY_FILE is ready: exit code 0 if so, 1 with the reasons if not.

    Example: RINGFENCE_READY_FILE=/tmp/ready ringfence ready
    """
    name = os.environ.get("RINGFENCE_READY_FILE")
    if not name:
        raise typer.BadParameter("set it to the file that the worker was started with", param_hint="RINGFENCE_READY_FILE")
    reasons = why_not_ready(Path(name))
    if reasons:
        for reason in reasons:
            typer.echo(f"not ready: {reason}")
        raise typer.Exit(EXIT_FINDINGS)
    typer.echo("ready")


def _log_as(settings: Settings) -> None:
    """Structured logs to standard error; standard output is for answers."""
    level = getattr(logging, settings.log_level.upper())
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_numbers,
            structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer(colors=colours),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # Faust, mode and aiokafka tell much that concerns nobody.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])


def main() -> None:
    """Entry point: turns errors that a user can mend into one line and an exit code."""
    try:
        app()
    except (CannotStart, RulebookInvalid) as error:
        sys.stderr.write(f"ringfence: {error}\n")
        sys.exit(EXIT_CANNOT_START)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read us has gone, as `head` does; point the rest of standard output nowhere and leave quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
