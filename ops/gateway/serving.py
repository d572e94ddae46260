"""Serves the handlers of a gateway: a problem becomes an answer, and every answer is counted.

Starlette routes, and reads and writes messages; what its own application puts around every request (four layers that look after
exceptions) is done here in one: they took 7 % of a single request's time (py-spy, 500 a second).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from ops.gateway.gateway import Gateway
from ops.gateway.problems import Problem, response

log = structlog.get_logger(__name__)

Handler = Callable[[Gateway, Request], Awaitable[Response]]


class Serving:
    """The ASGI application of one path."""

    def __init__(self, gateway: Gateway, path: str, handler: Handler) -> None:
        """Answers are counted under ``path``, which is a route's and never a request's."""
        self._gateway = gateway
        self._path = path
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._answer(Request(scope, receive, send))
        self._gateway.responses[self._path, answer.status_code] += 1
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(self._gateway, request)
        except Problem as problem:
            if problem.reason is not None:
                self._gateway.refused[problem.reason] += 1
            return response(problem)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            log.exception("a request failed", path=self._path)
            return response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log says why"))


class Application:
    """The ASGI application of a gateway."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._router = Router(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["app"] = self  # the router says in plain text what it does not serve, unless it is part of an application
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            refused = response(Problem(error.status_code, HTTPStatus(error.status_code).description or error.detail))
            refused.headers.update(error.headers or {})
            await refused(scope, receive, send)
