"""``/v1/call-requests``: one question at a time, or JSON lines in and JSON lines out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from http import HTTPStatus
from itertools import islice
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ops.gateway import limits
from ops.gateway.context import context_of_request
from ops.gateway.gateway import Gateway
from ops.gateway.problems import Problem

NDJSON = "application/x-ndjson"
#: Lines of one bulk request that are asked at once; the next line is taken when the oldest of them is answered.
_AT_ONCE = 500
_encode = msgspec.json.Encoder().encode


async def ask(gateway: Gateway, request: Request) -> Response:
    """Answer one call request with its decision."""
    raw = await limits.body(request, limits.RECORD_BYTES)
    with gateway.tracing.span("ringfence.ask", context_of_request(request)) as context:
        decision = await gateway.asking.ask(raw, context)
    return Response(decision, media_type="application/json", headers={"Cache-Control": "no-store"})


async def ask_in_bulk(gateway: Gateway, request: Request) -> Response:
    """Answer every line with a decision or an error, in the order of the lines.

    All lines are taken in before the first answer goes out. A client that sends all before it reads, as most do, would otherwise wait
    for us to read while we wait for it; the body's limit bounds what is kept.

    Raises:
        Problem: 413 it is too large; 422 there is no line.
    """
    lines = [line for line in (await limits.body(request, limits.BULK_BYTES)).split(b"\n") if line.strip()]
    if not lines:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "want a call request a line", code="missing")
    return StreamingResponse(_answers(gateway, lines), media_type=NDJSON, headers={"Cache-Control": "no-store"})


async def _answers(gateway: Gateway, lines: list[bytes]) -> AsyncIterator[bytes]:
    """The answers, as fast as the client reads them: what it does not read is not asked."""
    left = iter(lines)
    asked: deque[asyncio.Task[bytes]] = deque()
    try:
        while True:
            asked += (asyncio.create_task(_answer(gateway, line)) for line in islice(left, _AT_ONCE - len(asked)))
            if not asked:
                return
            answers = [await asked.popleft()]
            while asked and asked[0].done():
                answers.append(asked.popleft().result())
            yield b"".join(answers)
    finally:
        for task in asked:
            task.cancel()


async def _answer(gateway: Gateway, line: bytes) -> bytes:
    if len(line) > limits.RECORD_BYTES:
        return _error(Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {limits.RECORD_BYTES} bytes a line", code="too_large"))
    try:
        return await gateway.asking.ask(line) + b"\n"
    except Problem as problem:
        return _error(problem)


def _error(problem: Problem) -> bytes:
    error: dict[str, Any] = {
        "code": problem.members.get("code"),
        "field": problem.members.get("field") or "",
        "message": problem.detail,
    }
    return _encode({"request_id": problem.members.get("request_id"), "error": error}) + b"\n"
