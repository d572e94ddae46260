"""The W3C trace context of a record: who asks to follow a call through systems finds it on the answer again.

Producers put it into the headers ``traceparent`` and ``tracestate`` of a record. What is not exactly what the standard wants is
dropped, so that nothing else is carried on under these names. No decision looks at it, and neither Redis nor the journal keeps it.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/ (version 00).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from streams.publisher import Headers

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

_MOST_STATE_BYTES = 512  # what the standard asks to be carried at least, and all that is carried here
_MOST_STATE_MEMBERS = 32
# Version, trace, parent, flags; an id of zeros is none.
_PARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MEMBER = rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_STATE = re.compile(_MEMBER + rb"(?:[ \t]*,[ \t]*" + _MEMBER + rb"){0,%d}" % (_MOST_STATE_MEMBERS - 1))


def context_of(headers: Collection[tuple[str, bytes | None]]) -> Headers:
    """The headers of a record, or of an HTTP request, that make its trace context; none if it has no valid one.

    A state is dropped where it is too long or is not what the standard wants; a ``traceparent`` that stands there twice is none.
    """
    parents = [value for name, value in headers if name == TRACEPARENT]
    if len(parents) != 1 or parents[0] is None or _PARENT.fullmatch(parents[0]) is None:
        return ()
    states = [value for name, value in headers if name == TRACESTATE]
    if len(states) != 1 or states[0] is None or len(states[0]) > _MOST_STATE_BYTES or _STATE.fullmatch(states[0]) is None:
        return ((TRACEPARENT, parents[0]),)
    return ((TRACEPARENT, parents[0]), (TRACESTATE, states[0]))


def is_sampled(context: Headers) -> bool:
    """Whether who began the trace records it, and asks others to."""
    return bool(context) and bool(int(context[0][1][-2:], 16) & 1)
