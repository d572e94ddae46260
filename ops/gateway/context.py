"""The trace context of an HTTP request, for the records that it puts on Kafka."""

from __future__ import annotations

from starlette.requests import Request

from streams.publisher import Headers
from streams.trace_context import TRACEPARENT, TRACESTATE, context_of


def context_of_request(request: Request) -> Headers:
    """What of a request's headers goes on as headers of its record; nothing if it carries no valid context."""
    headers = request.headers
    if TRACEPARENT not in headers:
        return ()
    return context_of([(name, value.encode("latin-1")) for name in (TRACEPARENT, TRACESTATE) for value in headers.getlist(name)])
