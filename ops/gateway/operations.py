"""An operation of the gateway: its route, who may use it, and what the OpenAPI document says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ops.gateway.gateway import Gateway
from ops.gateway.keys import Key
from ops.gateway.problems import Problem
from ops.gateway.serving import Handler, Serving

COOKIE = "ringfence"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        scopes: a key needs one of them; empty: any key will do; None: nobody needs a key.
        answer: status of the good answer.
        media: its media type; None if there is no content.
        content: JSON Schema of the answer (of each line, or of each event's data); None leaves it open.
        body: JSON Schema of the request's body (of each line of it), if there is one.
        body_media: the body's media type.
        query: JSON Schema and description of each parameter of the query.
        problems: statuses with which it may refuse, beside those that every operation has.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    scopes: frozenset[str] | None
    answer: int = 200
    media: str | None = "application/json"
    content: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None
    body_media: str = "application/json"
    query: Mapping[str, tuple[Mapping[str, Any], str]] = field(default_factory=dict)
    problems: tuple[int, ...] = ()

    def route(self, gateway: Gateway) -> Route:
        """The route that serves it: access first, then the handler."""
        return Route(self.path, Serving(gateway, self.path, self._serve), methods=[self.method])

    async def _serve(self, gateway: Gateway, request: Request) -> Response:
        if self.scopes is not None:
            _admit(gateway, request, self.scopes)
        return await self.handler(gateway, request)


def key_of(gateway: Gateway, request: Request) -> Key | None:
    """Who asks: by bearer key, or by the dashboard's cookie, which reads and does nothing else.

    None if nobody that is known.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme:
        return gateway.keys.of_secret(secret.strip()) if scheme.lower() == "bearer" else None
    if request.method in ("GET", "HEAD") and (cookie := request.cookies.get(COOKIE)):
        key = gateway.keys.of_cookie(cookie)
        return key if key is not None and "operate" in key.scopes else None
    return None


def _may(gateway: Gateway, request: Request, scope: str) -> bool:
    """Whether who asks has a scope."""
    key = key_of(gateway, request)
    return key is not None and scope in key.scopes


def wants_unmasked(gateway: Gateway, request: Request) -> bool:
    """Whether numbers are asked for in full.

    Raises:
        Problem: 403, the key may not see them; 422, neither true nor false.
    """
    text = request.query_params.get("unmasked", "false")
    if text not in ("true", "false"):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "want true or false", code="enum", field="unmasked")
    if text == "true" and not _may(gateway, request, "operate"):
        raise Problem(HTTPStatus.FORBIDDEN, "numbers in full need the scope operate", reason="scope")
    return text == "true"


def _admit(gateway: Gateway, request: Request, scopes: frozenset[str]) -> None:
    """Refuse whoever has no key, not the scope, or asks too often.

    Raises:
        Problem: 401, 403 or 429.
    """
    key = key_of(gateway, request)
    if key is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "want a key that is known: Authorization: Bearer SECRET", reason="key")
    if scopes and scopes.isdisjoint(key.scopes):
        raise Problem(HTTPStatus.FORBIDDEN, f"this key lacks the scope {' or '.join(sorted(scopes))}", reason="scope")
    wait_s = gateway.rates[key.name].wait_s()
    if wait_s:
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS, f"more than {gateway.settings.gateway_rate:g} requests a second with this key",
            reason="rate", retry_after_s=math.ceil(wait_s),
        )  # fmt: skip
