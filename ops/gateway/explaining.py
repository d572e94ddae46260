"""``/v1/decisions/{request_id}/explanation``: why a request was answered as it was; and what the codes say, in both languages."""

from __future__ import annotations

import asyncio
from datetime import date
from http import HTTPStatus
from typing import cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ops.explain.catalogue import LANGUAGES, catalogue
from ops.explain.places import Place, parse_place
from ops.explain.run import explained
from ops.explain.values import of_law
from ops.explain.wording import worded
from ops.gateway.gateway import Gateway
from ops.gateway.operations import wants_unmasked
from ops.gateway.problems import Problem
from rules.codes import ALL_CODES
from rules.errors import RulebookGap, StateError
from rules.instants import local_day
from rules.requests import MAX_REQUEST_ID_CHARS

#: A search through a log of many days takes longer: ``ringfence explain`` has no such bound.
_WITHIN_S = 30.0
_encode = msgspec.json.Encoder().encode


async def explanation(gateway: Gateway, request: Request) -> Response:
    """Explain the newest decision of a request, or the one at a place of the output topics.

    Raises:
        Problem: 404 there is none; 422 a parameter makes no sense; 503 Kafka does not answer, or not in time.
    """
    request_id = cast("str", request.path_params["request_id"])
    lang = _lang(request)
    unmasked = wants_unmasked(gateway, request)
    at = _place(request.query_params.get("at"))
    if len(request_id) > MAX_REQUEST_ID_CHARS:
        raise _missing()
    try:
        async with asyncio.timeout(_WITHIN_S):
            found = await explained(gateway.settings, request_id, at=at, book=gateway.book, log=gateway.log)
    except StateError as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after_s=5) from None
    except TimeoutError:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, f"not found within {_WITHIN_S:g} s; say where with `at`", retry_after_s=5
        ) from None
    if found is None:
        raise _missing()
    return Response(
        _encode(worded(found, lang, unmasked=unmasked)), media_type="application/json", headers={"Cache-Control": "no-store"}
    )


async def codes(gateway: Gateway, request: Request) -> Response:
    """What every code is called and means, with the law of today; what only a call has (its party, its day) is an ellipsis.

    Raises:
        Problem: 422 there is no such language.
    """
    words = catalogue(_lang(request))
    try:
        law = gateway.book.on(date.fromordinal(local_day(gateway.clock.now())), member=False)
    except RulebookGap:
        law = None
    values = {**dict(of_law(words, gateway.book, law)), "of_subject": "", "of_date": ""}
    texts = {code: words.code(code, values) for code in ALL_CODES}
    return Response(
        _encode({code: {"name": text.name, "meaning": text.meaning} for code, text in texts.items()}), media_type="application/json"
    )


def _lang(request: Request) -> str:
    lang = request.query_params.get("lang", LANGUAGES[0])
    if lang not in LANGUAGES:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"want {' or '.join(LANGUAGES)}", code="enum", field="lang")
    return lang


def _place(text: str | None) -> Place | None:
    """A place, or the id of an event of the stream, which begins with one."""
    try:
        return parse_place(text.partition("~")[0]) if text is not None else None
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), code="format", field="at") from None


def _missing() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "there is no decision about such a request, or no longer")
