"""What operators and compliance officers look at: figures, a number's state, rejected events, suspended numbers."""

from __future__ import annotations

import csv
import io
import time
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ops.gateway.gateway import Gateway
from ops.gateway.operations import wants_unmasked
from ops.gateway.problems import Problem
from ops.gateway.state_json import state_of
from ops.quarantine import suspended_now
from ops.rejected import Rejected, read
from ops.topic_log import opened
from ops.worker_status import workers
from rules.e164 import is_e164
from rules.errors import CannotStart, StateError
from rules.instants import format_instant
from streams.partitioner import partition_of
from streams.topics import REJECTED

CSV = "text/csv"
REJECTED_AT_MOST = 500
_REJECTED_SHOWN = 50
_UNAVAILABLE = "S_STATE_UNAVAILABLE"
_encode = msgspec.json.Encoder().encode
# A cell that begins so is a formula to a spreadsheet; party names come from outside.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def overview(gateway: Gateway, _request: Request) -> Response:
    """The figures since the gateway started."""
    now = time.monotonic()
    statistics = gateway.feed.statistics
    return _json(
        {
            "version": version("ringfence"),
            "rulebook": gateway.book.version,
            "now": format_instant(gateway.clock.now()),
            "since_s": round(now - gateway.feed.started, 1),
            "trouble": gateway.feed.trouble,
            "figures": statistics.snapshot(now).as_json(),
            "over_time": gateway.feed.timeline.as_json(now),
            **await _workers(gateway),
        }
    )


async def _workers(gateway: Gateway) -> dict[str, Any]:
    """What the workers said of themselves; None, and why, if Redis does not answer."""
    try:
        return {"workers": await workers(gateway.redis, gateway.settings.redis_prefix), "workers_trouble": None}
    except StateError as error:
        return {"workers": None, "workers_trouble": str(error)}


async def attribution(gateway: Gateway, _request: Request) -> Response:
    """Approved and blocked per advertiser, intermediary, call centre and campaign, as CSV."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(("role", "id", "name", "approved", "blocked", "share approved"))
    snapshot = gateway.feed.statistics.snapshot(time.monotonic())
    for party in (*snapshot.parties, *snapshot.campaigns):
        table.writerow((party.role, _cell(party.party_id), _cell(party.name), party.approved, party.blocked, f"{party.share:.4f}"))
    headers = {"Content-Disposition": 'attachment; filename="ringfence-attribution.csv"', "Cache-Control": "no-store"}
    return Response(text.getvalue(), media_type=CSV, headers=headers)


async def number(gateway: Gateway, request: Request) -> Response:
    """The state of a number, as the guard would decide with it now.

    Raises:
        Problem: 422 it is no number; 503 the state cannot be read, or is being read again from Kafka.
    """
    asked = cast("str", request.path_params["number"])
    unmasked = wants_unmasked(gateway, request)
    if not is_e164(asked):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "want E.164 like +31612345678 (as %2B31612345678)", code="format", field="number"
        )
    partition = partition_of(asked.encode(), gateway.settings.partitions)
    try:
        seen = (await gateway.store.read_for_turn({partition: [asked]}))[partition]
        shown = state_of(asked, seen.facts(asked), seen.entries(asked), unmasked=unmasked)
    except StateError as error:
        raise _unavailable(str(error)) from None
    if seen.meta is None:
        raise _unavailable(f"Redis knows nothing of partition {partition}: its state is being read again")
    return _json({**shown, "partition": partition, "applied": seen.meta.applied})


async def rejected(gateway: Gateway, request: Request) -> Response:
    """The newest rejected events.

    Raises:
        Problem: 422 ``limit`` is no such number; 503 Kafka does not answer.
    """
    text = request.query_params.get("limit", str(_REJECTED_SHOWN))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= REJECTED_AT_MOST):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"want a whole number from 1 to {REJECTED_AT_MOST}", code="format", field="limit"
        )
    found: list[Rejected] = []
    try:
        async with opened(gateway.settings, REJECTED) as log:
            async for record in log.records(last=int(text)):
                found += [event for event in (read(record),) if event is not None]
    except CannotStart as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after_s=5) from None
    return _json({"rejected": [event.as_json() for event in sorted(found, reverse=True)[: int(text)]]})


async def quarantine(gateway: Gateway, _request: Request) -> Response:
    """The suspended numbers, longest suspended first.

    Raises:
        Problem: 503 Kafka does not answer.
    """
    try:
        async with opened(gateway.settings, REJECTED) as log:
            listing = await suspended_now(log, gateway.store, scan=False)
    except CannotStart as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after_s=5) from None
    return _json({"suspended": [one.as_json(unmasked=False) for one in listing.suspended], "trouble": listing.trouble})


def _unavailable(detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, code=_UNAVAILABLE, retry_after_s=1)


def _json(value: Any) -> Response:
    return Response(_encode(value), media_type="application/json", headers={"Cache-Control": "no-store"})


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
