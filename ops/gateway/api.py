"""The operations of the gateway, all of them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ops.contracts import schemas
from ops.explain.catalogue import LANGUAGES
from ops.gateway.dialling import NDJSON, ask, ask_in_bulk
from ops.gateway.explaining import codes, explanation
from ops.gateway.gateway import Gateway
from ops.gateway.looking import CSV, REJECTED_AT_MOST, attribution, number, overview, quarantine, rejected
from ops.gateway.openapi import document
from ops.gateway.operations import Operation
from ops.gateway.reporting import take_in, take_out
from ops.gateway.watching import EVENT_STREAM, RECENT_AT_MOST, stream
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC
from streams.topics import APPROVED

_DIAL, _REPORT, _OPERATE = frozenset({"dial"}), frozenset({"report"}), frozenset({"operate"})
_RELEASES = "quarantine-releases"
_ACCEPTED = {
    "type": "object",
    "required": ["topic", "partition", "offset", "event_id"],
    "properties": {
        "topic": {"type": "string"},
        "partition": {"type": "integer"},
        "offset": {"type": "integer"},
        "event_id": {"type": "string", "description": "That of the event; of a reference entry its key."},
    },
}
_OBJECT = {"type": "object"}
_UNMASKED = ({"type": "string", "enum": ["true", "false"], "default": "false"}, "Numbers in full; needs the scope operate.")
_LANG = ({"type": "string", "enum": list(LANGUAGES), "default": LANGUAGES[0]}, "Language.")
_AT = r"^(approved|blocked)-[0-9]{1,9}@[0-9]{1,18}(~[0-9]{1,15})?$"
_MANY = {"type": "array", "items": {"type": "string"}}
_encode = msgspec.json.Encoder().encode


async def livez(_gateway: Gateway, _request: Request) -> Response:
    """Whether the gateway's loop runs."""
    return Response(b'{"live":true}', media_type="application/json")


async def readyz(gateway: Gateway, _request: Request) -> Response:
    """Whether the gateway can answer: Kafka does, and the decisions are read."""
    trouble = gateway.feed.trouble
    return Response(
        _encode({"ready": trouble is None, "trouble": trouble}), 200 if trouble is None else 503, media_type="application/json"
    )


async def _openapi(_gateway: Gateway, _request: Request) -> Response:
    return Response(_encode(openapi()), media_type="application/json")


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the gateway."""
    return document(operations(), version("ringfence"))


def operations() -> list[Operation]:
    """Everything that the gateway serves beside its pages, in the order of its document."""
    records = schemas()
    decision = records[APPROVED]
    line = {"anyOf": [decision, {"type": "object", "required": ["request_id", "error"]}]}
    return [
        Operation(
            method="POST", path="/v1/call-requests", handler=ask, scopes=_DIAL, body=records[REQUEST_TOPIC], content=decision,
            summary="May this call be made? Answers with the decision, approved or blocked.", problems=(409, 413, 422, 503),
        ),
        Operation(
            method="POST", path="/v1/call-requests/bulk", handler=ask_in_bulk, scopes=_DIAL, media=NDJSON, body_media=NDJSON,
            body=records[REQUEST_TOPIC], content=line, problems=(413, 422),
            summary="The same for JSON lines: line n of the answer answers line n, with a decision or an error.",
        ),
        *(
            Operation(
                method="POST", path=f"/v1/{topic}", handler=take_in(topic), body=records[topic], content=_ACCEPTED, answer=202,
                scopes=_OPERATE if topic in REFERENCE_MODELS or topic == _RELEASES else _REPORT,
                summary=f"{records[topic]['description']} Answers when Kafka has acknowledged it.", problems=(413, 422, 503),
            )
            for topic in (*FACT_MODELS, *REFERENCE_MODELS)
        ),
        *(
            Operation(
                method="DELETE", path=f"/v1/{topic}/{{key}}", handler=take_out(topic), content=_ACCEPTED, answer=202, scopes=_OPERATE,
                summary="Removes an entry, known or not.", problems=(503,),
            )
            for topic in REFERENCE_MODELS
        ),
        Operation(
            method="GET", path="/v1/numbers/{number}", handler=number, scopes=_OPERATE, content=_OBJECT, query={"unmasked": _UNMASKED},
            summary="The state of a number, as the guard would decide with it now.", problems=(422, 503),
        ),
        Operation(
            method="GET", path="/v1/decisions/stream", handler=stream, scopes=_DIAL | _OPERATE, media=EVENT_STREAM,
            content={"type": "string"},
            summary="Decisions and recalls as server-sent events; Last-Event-ID resumes. An event may come twice: its id tells.",
            query={
                "decision": ({**_MANY, "items": {"type": "string", "enum": ["approved", "blocked"]}}, "Any of these decisions."),
                "kind": ({**_MANY, "items": {"type": "string", "enum": ["decision", "recall"]}}, "Any of these kinds."),
                "reason": (_MANY, "With any of these codes among its reasons."),
                "advertiser": (_MANY, "Of any of these."),
                "intermediary": (_MANY, "Of any of these."),
                "call_centre": (_MANY, "Of any of these."),
                "campaign": (_MANY, "Of any of these."),
                "recent": ({"type": "integer", "minimum": 0, "maximum": RECENT_AT_MOST, "default": 0}, "The last ones first."),
                "unmasked": _UNMASKED,
            },
            problems=(422, 503),
        ),
        Operation(
            method="GET", path="/v1/decisions/{request_id}/explanation", handler=explanation, scopes=_OPERATE, content=_OBJECT,
            summary="Why a request was answered as it was, rule by rule, with the facts behind it.",
            query={
                "lang": _LANG,
                "at": ({"type": "string", "pattern": _AT}, "Where it stands: the id of its event. Without it all is searched."),
                "unmasked": _UNMASKED,
            },
            problems=(404, 422, 503),
        ),
        Operation(
            method="GET", path="/v1/codes", handler=codes, scopes=frozenset(), content=_OBJECT, query={"lang": _LANG}, problems=(422,),
            summary="What every code is called and means.",
        ),
        Operation(
            method="GET", path="/v1/overview", handler=overview, scopes=_OPERATE, content=_OBJECT,
            summary="The figures since the gateway started: outcomes, reasons, parties, latency, workers.",
        ),
        Operation(
            method="GET", path="/v1/attribution.csv", handler=attribution, scopes=_OPERATE, media=CSV, content={"type": "string"},
            summary="Approved and blocked per advertiser, intermediary, call centre and campaign.",
        ),
        Operation(
            method="GET", path="/v1/rejected", handler=rejected, scopes=_OPERATE, content=_OBJECT, problems=(422, 503),
            query={"limit": ({"type": "integer", "minimum": 1, "maximum": REJECTED_AT_MOST, "default": 50}, "At most so many.")},
            summary="The newest records that could not be used.",
        ),
        Operation(
            method="GET", path="/v1/quarantine", handler=quarantine, scopes=_OPERATE, content=_OBJECT, problems=(503,),
            summary="Numbers that a broken objection or consent has suspended.",
        ),
        Operation(
            method="GET", path="/v1/openapi.json", handler=_openapi, scopes=frozenset(), content=_OBJECT, summary="This document.",
        ),
        Operation(method="GET", path="/livez", handler=livez, scopes=None, content=_OBJECT, summary="Whether the gateway runs."),
        Operation(
            method="GET", path="/readyz", handler=readyz, scopes=None, content=_OBJECT, problems=(503,),
            summary="Whether the gateway can answer, and if not, why.",
        ),
    ]  # fmt: skip
