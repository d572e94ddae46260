"""Spans for requests that carry a sampled trace context, exported by OpenTelemetry.

Only where somebody wants them: with the packages of the extra ``tracing`` and ``OTEL_EXPORTER_OTLP_ENDPOINT`` set. The other variables
of OpenTelemetry's exporter hold too. A span is made where the caller has begun a trace and records it; none is begun here. Spans
gather in memory and leave in a thread of their own; where the collector is away, or too slow, they are dropped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec
import structlog

from agents.context import Answered
from config.settings import Settings
from streams.publisher import Headers
from streams.trace_context import context_of, is_sampled

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = structlog.get_logger(__name__)

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_STOP_WITHIN_S = 3.0

Attributes = Mapping[str, str | int | list[str]]


class _Told(msgspec.Struct):
    """What a span tells of a decision: nothing that says whom it is about."""

    decision: str
    reasons: list[str]


_decode = msgspec.json.Decoder(_Told).decode


def start(settings: Settings, service: str) -> Tracing:
    """Begin to export spans under a service's name, if somebody wants them.

    Args:
        settings: the consumer group is told as ``service.namespace``.
        service: ``ringfence-worker``, ``ringfence-gateway``.
    """
    if not os.environ.get(_ENDPOINT):
        return Tracing(None)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
    except ImportError:
        log.warning(
            "no spans are exported", reason=f'{_ENDPOINT} is set, and the packages are missing: pip install "ringfence[tracing]"'
        )
        return Tracing(None)
    told = {"service.name": service, "service.namespace": settings.group, "service.version": version("ringfence")}
    # Ended by :meth:`Tracing.stop`, in bounded time; at the interpreter's exit the library would wait for half a minute.
    provider = TracerProvider(resource=Resource.create(told), sampler=ParentBased(root=ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class Tracing:
    """Makes spans, or none if there is nobody to take them (``provider`` None)."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = provider.get_tracer("ringfence", version("ringfence")) if provider is not None else None

    @property
    def is_on(self) -> bool:
        """Whether spans go anywhere."""
        return self._provider is not None

    def answered(self, told: Answered) -> None:
        """Make the span ``ringfence.decide`` of a request that was answered just now; ``Guard.on_answered``."""
        if self._tracer is None or not is_sampled(told.context):
            return
        decision, now_ns = _decode(told.item.record), time.time_ns()
        span = self._tracer.start_span(
            "ringfence.decide",
            _remote(told.context),
            start_time=now_ns - int(told.took_s * 1e9),
            attributes={
                "ringfence.decision": decision.decision,
                "ringfence.reasons": decision.reasons,
                "ringfence.partition": told.partition,
                "ringfence.offset": told.item.offset,
            },
        )
        span.end(now_ns)

    @contextmanager
    def span(self, name: str, context: Headers, attributes: Attributes | None = None) -> Iterator[Headers]:
        """Make a span around a block, if the context is a sampled one.

        Args:
            name: of the span.
            context: where it belongs (``streams.trace_context.context_of``).
            attributes: what it tells; never a number, a person or an id of one.

        Yields:
            The context that goes on from here: that of the span, or else the one that came in.
        """
        if self._tracer is None or not is_sampled(context):
            yield context
            return
        from opentelemetry.trace import StatusCode, set_span_in_context

        span = self._tracer.start_span(name, _remote(context), attributes=attributes)
        try:
            yield _headers(set_span_in_context(span))
        except BaseException as error:
            # Its kind and no more: what it says may quote what it broke on.
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            span.end()

    def stop(self) -> None:
        """Send what is left and end, within seconds also where nobody takes it."""
        if self._provider is not None:
            ending = threading.Thread(target=self._provider.shutdown, name="ringfence-tracing", daemon=True)
            ending.start()
            ending.join(_STOP_WITHIN_S)


def _remote(context: Headers) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({name: value.decode() for name, value in context})


def _headers(context: Context) -> Headers:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return context_of([(name, value.encode()) for name, value in carrier.items()])
