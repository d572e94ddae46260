"""The dashboard's pages, and signing in to it.

Without a session there is the sign-in page alone, which holds no data. Nothing on a page comes from another host, and no script or
style stands in it.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from importlib.resources import files
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ops.gateway import limits
from ops.gateway.gateway import Gateway
from ops.gateway.keys import SESSION_S
from ops.gateway.limits import Rate
from ops.gateway.operations import COOKIE, key_of
from ops.gateway.problems import Problem
from ops.gateway.serving import Serving

_MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: What the sign-in page is made of; the rest is for who has signed in.
_OPEN = frozenset({"style.css", "login.js", "icon.svg"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_LOGIN_BYTES = 4096
_LOGINS_A_SECOND = 5.0


def routes(gateway: Gateway) -> list[Route]:
    """The pages of a gateway."""
    login = partial(_login, Rate(_LOGINS_A_SECOND))
    return [
        Route("/", Serving(gateway, "/", _page), methods=["GET"]),
        Route("/static/{name}", Serving(gateway, "/static", _static), methods=["GET"]),
        Route("/login", Serving(gateway, "/login", login), methods=["POST"]),
        Route("/logout", Serving(gateway, "/logout", _logout), methods=["POST"]),
    ]


async def _page(gateway: Gateway, request: Request) -> Response:
    if _signed_in(gateway, request):
        return _file("index.html")
    return _file("signin.html", HTTPStatus.UNAUTHORIZED)


async def _static(gateway: Gateway, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _OPEN and not _signed_in(gateway, request):
        raise Problem(HTTPStatus.UNAUTHORIZED, "sign in first")
    return _file(name)


async def _login(logins: Rate, gateway: Gateway, request: Request) -> Response:
    if logins.wait_s():
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too many attempts to sign in", reason="rate", retry_after_s=1)
    form = parse_qs((await limits.body(request, _LOGIN_BYTES)).decode("utf-8", "replace"))
    key = gateway.keys.of_secret(form.get("key", [""])[0].strip())
    if key is None or "operate" not in key.scopes:
        raise Problem(HTTPStatus.UNAUTHORIZED, "this is no key with the scope operate", reason="key")
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, gateway.keys.cookie(key), max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
    return answer


async def _logout(_gateway: Gateway, _request: Request) -> Response:
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _signed_in(gateway: Gateway, request: Request) -> bool:
    key = key_of(gateway, request)
    return key is not None and "operate" in key.scopes


def _file(name: str, status: int = HTTPStatus.OK) -> Response:
    folder = files("ops.gateway") / "static"
    suffix = name[name.rfind(".") :]
    # Names are compared with what is there: no path of a request is ever opened.
    if suffix not in _MEDIA or name not in {file.name for file in folder.iterdir()}:
        raise Problem(HTTPStatus.NOT_FOUND, "there is no such page")
    return Response((folder / name).read_bytes(), status, _HEADERS, media_type=_MEDIA[suffix])
