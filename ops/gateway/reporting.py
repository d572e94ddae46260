"""``/v1/consents``, ``/v1/objections`` and the other facts: answered when Kafka has acknowledged them, and not before."""

from __future__ import annotations

from http import HTTPStatus
from typing import cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ops.gateway import limits
from ops.gateway.context import context_of_request
from ops.gateway.gateway import Gateway
from ops.gateway.problems import Problem, unreadable
from ops.gateway.publishing import Unacknowledged
from ops.gateway.serving import Handler
from rules.errors import InputError
from rules.events import REFERENCE_KEYS, parse_json, validate
from streams.publisher import Headers

_encode = msgspec.json.Encoder().encode


def take_in(topic: str) -> Handler:
    """The handler that takes in records of a topic (name without prefix)."""

    async def handle(gateway: Gateway, request: Request) -> Response:
        raw = await limits.body(request, limits.RECORD_BYTES)
        key, event_id = _read(topic, raw)
        with gateway.tracing.span("ringfence.report", context_of_request(request), {"ringfence.topic": topic}) as context:
            return _accepted(topic, event_id, await _published(gateway, topic, key, raw, context))

    return handle


def take_out(topic: str) -> Handler:
    """The handler that removes entries of a reference topic (name without prefix), by a null."""

    async def handle(gateway: Gateway, request: Request) -> Response:
        key = cast("str", request.path_params["key"])
        return _accepted(topic, key, await _published(gateway, topic, key, None))

    return handle


def _read(topic: str, raw: bytes) -> tuple[str, str]:
    """The key and the id of a record, read as the guard will read it.

    Raises:
        Problem: 422, with the contract's code and field.
    """
    field = REFERENCE_KEYS.get(topic, "number")
    try:
        record = validate(topic, parse_json(raw))
    except InputError as error:
        raise unreadable(error) from None
    key = cast("str", getattr(record, field))
    return key, cast("str", getattr(record, "event_id", key))


async def _published(gateway: Gateway, topic: str, key: str, raw: bytes | None, context: Headers = ()) -> tuple[int, int]:
    try:
        sent = await gateway.publishing.publish(topic, key, raw, context)
    except Unacknowledged as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), reason="unacknowledged", retry_after_s=1) from None
    return sent.partition, sent.offset


def _accepted(topic: str, event_id: str, place: tuple[int, int]) -> Response:
    partition, offset = place
    answer = {"topic": topic, "partition": partition, "offset": offset, "event_id": event_id}
    return Response(_encode(answer), HTTPStatus.ACCEPTED, media_type="application/json")
