"""What the gateway answers instead of what was asked for: ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from rules.errors import InputError, RingfenceError

_encode = msgspec.json.Encoder().encode


class Problem(RingfenceError):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        reason: a short word for the metrics; None where the status says it all.
        retry_after_s: when it makes sense to ask again, if that is known.
        members: further members of the answer: ``code``, ``field``, ``request_id``.
    """

    def __init__(
        self, status: int, detail: str, *, reason: str | None = None, retry_after_s: int | None = None, **members: str | None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.members = members


def unreadable(error: InputError, request_id: str | None = None) -> Problem:
    """A record that cannot be read: the contract's code, the path of the field, and the shape that is wanted."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.message, code=error.code, field=error.field, request_id=request_id)


def response(problem: Problem) -> Response:
    """The answer for a problem. It must not be kept by anybody: the next one may be different."""
    headers = {"Cache-Control": "no-store"}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="ringfence"'
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    return Response(_encode(_body(problem)), problem.status, headers, media_type="application/problem+json")


def _body(problem: Problem) -> Mapping[str, Any]:
    members = {name: value for name, value in problem.members.items() if value is not None}
    return {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **members,
    }
