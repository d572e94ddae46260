"""``/v1/decisions/stream``: decisions and recalls as server-sent events, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ops.gateway.gateway import Gateway
from ops.gateway.hub import Event, Filter, Subscription
from ops.gateway.operations import wants_unmasked
from ops.gateway.problems import Problem
from ops.gateway.replay import REPLAYS_MAX, Replay, resume_ms
from rules.errors import StateError

EVENT_STREAM = "text/event-stream"
RECENT_AT_MOST = 500
_BEAT_S = 15.0
#: A reader that takes nothing for so long is gone.
_SEND_WITHIN_S = 30.0
_BEAT = b": still here\n\n"
#: For browsers: how long to wait before they come back.
_RETRY = b"retry: 2000\n\n"

_FIELDS = {
    "decision": "decisions",
    "kind": "kinds",
    "reason": "reasons",
    "advertiser": "advertisers",
    "intermediary": "intermediaries",
    "call_centre": "call_centres",
    "campaign": "campaigns",
}
_replaying = asyncio.Semaphore(REPLAYS_MAX)


async def stream(gateway: Gateway, request: Request) -> Response:
    """Open an event stream.

    Raises:
        Problem: 422 a parameter is none that it knows; 403 numbers in full without the scope ``operate``; 503 too many streams.
    """
    wanted = Filter(**{ours: frozenset(request.query_params.getlist(theirs)) for theirs, ours in _FIELDS.items()})
    unmasked = wants_unmasked(gateway, request)
    recent = _count(request.query_params.get("recent", "0"))
    since_ms = None
    if last := request.headers.get("last-event-id"):
        since_ms = resume_ms(last)
        if since_ms is None:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Last-Event-ID is none of this stream's", field="Last-Event-ID")
    opened = AsyncExitStack()
    subscription = opened.enter_context(gateway.feed.hub.subscribe(wanted))
    replay = Replay(gateway.settings, wanted, since_ms) if since_ms is not None else None
    first = gateway.feed.hub.recent(wanted, recent) if replay is None else []
    return _Stream(_messages(subscription, replay, first, unmasked=unmasked), opened)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= RECENT_AT_MOST):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"want a whole number from 0 to {RECENT_AT_MOST}", code="format", field="recent")
    return int(text)


async def _messages(
    subscription: Subscription, replay: Replay | None, first: list[Event], *, unmasked: bool
) -> AsyncGenerator[bytes, None]:
    """What goes out: what was missed, then what comes; it ends when the reader was too slow, who then comes back for the rest."""
    yield _RETRY
    yield b"".join(event.message(unmasked=unmasked) for event in first)
    if replay is not None:
        async with _replaying:
            try:
                async with aclosing(replay.events()) as missed:
                    async for events in missed:
                        yield b"".join(event.message(unmasked=unmasked) for event in events)
            except StateError:
                return
    while not subscription.ended:
        events = await subscription.take(_BEAT_S)
        fresh = [event for event in events if replay is None or not replay.had(event)]
        yield b"".join(event.message(unmasked=unmasked) for event in fresh) or (b"" if events else _BEAT)


class _Stream(Response):
    """Sends messages until they end, the reader goes, or takes nothing any more."""

    def __init__(self, messages: AsyncGenerator[bytes, None], opened: AsyncExitStack) -> None:
        super().__init__(media_type=EVENT_STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._messages = messages
        self._opened = opened

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one reader."""
        async with self._opened:
            sending = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving):
                    task.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async def out(message: dict[str, Any]) -> None:
            async with asyncio.timeout(_SEND_WITHIN_S):
                await send(message)

        await out({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._messages) as messages:
            async for part in messages:
                if part:
                    await out({"type": "http.response.body", "body": part, "more_body": True})
        await out({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
