"""A trace context comes back on the answer of its request; spans are made where somebody takes them, and tell of nobody."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.context import Answered
from config.settings import Settings
from ops import tracing
from streams.embedded import free_port
from streams.kept import Journalled
from streams.publisher import Headers
from streams.topics import REJECTED, ensure_topics
from streams.trace_context import context_of, is_sampled
from tests.harness import Client, Running, encode, guard_settings, running_worker
from tests.scene import REFERENCE, consent, invitation, numbers, objection, request, running_scene
from tests.servers import wait_for
from tests.test_gateway import OPERATE, served

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-01".encode())
UNSAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-00".encode())
STATE = ("tracestate", b"rojo=00f067aa0ba902b7,tenant@vendor=a b;c")
LONGEST = b"a=" + b"x" * 252 + b",b=" + b"x" * 255
DECISION = b'{"request_id":"q-1","number":"+31612345678","decision":"blocked","reasons":["E_OBJECTION"]}'


# --- without a server -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([], ()),
        ([SAMPLED], (SAMPLED,)),
        ([("other", b"1"), SAMPLED, STATE], (SAMPLED, STATE)),
        ([STATE], ()),
        ([SAMPLED, UNSAMPLED], ()),
        ([SAMPLED, STATE, STATE], (SAMPLED,)),
        ([SAMPLED, ("tracestate", None)], (SAMPLED,)),
        ([SAMPLED, ("tracestate", b"")], (SAMPLED,)),
        ([SAMPLED, ("tracestate", LONGEST)], (SAMPLED, ("tracestate", LONGEST))),
        ([SAMPLED, ("tracestate", LONGEST + b"x")], (SAMPLED,)),
        ([SAMPLED, ("tracestate", ",".join(f"k{i}=1" for i in range(33)).encode())], (SAMPLED,)),
        ([SAMPLED, ("tracestate", b"a=1\nb=2")], (SAMPLED,)),
        ([SAMPLED, ("tracestate", "a=\u00e9".encode())], (SAMPLED,)),
        ([("traceparent", None)], ()),
        ([("traceparent", SAMPLED[1].upper())], ()),
        ([("traceparent", SAMPLED[1] + b"\n")], ()),
        ([("traceparent", b"ff" + SAMPLED[1][2:])], ()),
        ([("traceparent", SAMPLED[1] + b"-01")], ()),
        ([("traceparent", f"00-{'0' * 32}-{PARENT}-01".encode())], ()),
        ([("traceparent", f"00-{TRACE}-{'0' * 16}-01".encode())], ()),
        ([("Traceparent", SAMPLED[1])], ()),
    ],
)  # fmt: skip
def test_only_what_the_standard_wants_is_carried(headers: list[tuple[str, bytes | None]], kept: Headers) -> None:
    """Anything else under these names is dropped, however near it comes."""
    assert context_of(headers) == kept


def test_who_does_not_record_a_trace_asks_nobody_to() -> None:
    """The last bit of the flags."""
    assert is_sampled((SAMPLED,))
    assert is_sampled((("traceparent", SAMPLED[1][:-2] + b"0b"), STATE))
    assert not is_sampled((UNSAMPLED,))
    assert not is_sampled(())


def test_nobody_wants_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint nothing is loaded, and a context goes on as it came."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    off = tracing.start(Settings(), "ringfence-worker")
    assert not off.is_on
    with off.span("ringfence.call-request", (SAMPLED, STATE)) as context:
        assert context == (SAMPLED, STATE)
    off.answered(Answered((SAMPLED,), 1, Journalled(7, approved=False, number="+31612345678", record=DECISION), 0.1))
    off.stop()


def test_an_endpoint_without_the_packages_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The worker goes on without spans."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert not tracing.start(Settings(), "ringfence-worker").is_on
    assert 'pip install "ringfence[tracing]"' in capsys.readouterr().out


# --- spans, as a collector gets them ----------------------------------------------------------------------------------------------


class Collector:
    """An OTLP collector that keeps what it is sent, read back into dictionaries."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        kept = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[Any]:
        """Every span, with the attributes of its process."""
        proto = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        found = []
        for body in list(self.bodies):
            sent = proto.ExportTraceServiceRequest.FromString(body)
            for process in sent.resource_spans:
                about = {one.key: one.value.string_value for one in process.resource.attributes}
                for scope in process.scope_spans:
                    found += [SimpleNamespace(span=span, about=about, told=attributes(span)) for span in scope.spans]
        return found


def attributes(span: Any) -> dict[str, Any]:
    """A span's attributes, as plain values."""

    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        return [plain(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {one.key: plain(one.value) for one in span.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, and the variables by which it is found."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason='no spans without pip install "ringfence[tracing]"')
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.stop()


def test_an_answer_makes_one_span_that_tells_of_nobody(collector: Collector) -> None:
    """In the caller's trace, as long as the turn took, with what was decided; of requests that are not recorded there is none."""
    on = tracing.start(Settings(group="g"), "ringfence-worker")
    for context in ((SAMPLED, STATE), (UNSAMPLED,)):
        on.answered(Answered(context, 3, Journalled(7, approved=False, number="+31612345678", record=DECISION), 0.25))
    on.stop()
    (made,) = collector.spans
    span = made.span
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("ringfence.decide", TRACE, PARENT)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000
    assert (made.about["service.name"], made.about["service.namespace"]) == ("ringfence-worker", "g")
    assert made.told == {
        "ringfence.decision": "blocked", "ringfence.reasons": ["E_OBJECTION"], "ringfence.partition": 3, "ringfence.offset": 7,
    }  # fmt: skip
    assert b"31612345678" not in b"".join(collector.bodies)


def test_a_block_makes_a_span_and_hands_its_context_on(collector: Collector) -> None:
    """What is published within belongs to the span; without a recorded trace the context goes on as it came."""
    on = tracing.start(Settings(), "ringfence-gateway")
    with on.span("ringfence.call-request", (SAMPLED, STATE), {"http.route": "/v1/call-requests"}) as context:
        inner = dict(context)
    with on.span("ringfence.call-request", (UNSAMPLED,)) as context:
        assert context == (UNSAMPLED,)
    with on.span("ringfence.call-request", ()) as context:
        assert context == ()
    with pytest.raises(KeyError), on.span("ringfence.call-request", (SAMPLED,)):
        {}["+31612345678"]
    on.stop()
    made, failed = collector.spans
    assert (failed.told, failed.span.status.code, failed.span.status.message) == ({"error.type": "KeyError"}, 2, "")
    assert b"31612345678" not in b"".join(collector.bodies)
    assert inner["traceparent"].decode() == f"00-{TRACE}-{made.span.span_id.hex()}-01"
    assert inner["tracestate"] == STATE[1]
    assert made.told == {"http.route": "/v1/call-requests"}


def test_a_collector_that_is_away_holds_nobody_up(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are dropped, and the end comes within seconds."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    on = tracing.start(Settings(), "ringfence-worker")
    began = time.monotonic()
    for offset in range(5000):
        on.answered(Answered((SAMPLED,), 3, Journalled(offset, approved=False, number="+31612345678", record=DECISION), 0.1))
    on.stop()
    assert time.monotonic() - began < 10


# --- a running guard --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """A guard of one partition."""
    async with running_scene(kafka, redis_url, partitions=1) as running:
        yield running


async def put(client: Client, asked: dict[str, Any], *headers: tuple[str, bytes]) -> Any:
    """Publish a request with headers."""
    return await client.put_raw("call-requests", asked["number"].encode(), encode(asked), headers=list(headers))


async def answer(client: Client, request_id: str, count: int = 1) -> Any:
    """The last of so many records about a request, as Kafka has it."""
    await client.decisions_of(request_id, count)
    return [one for one in client.records if json.loads(one.value)["request_id"] == request_id][count - 1]


@pytest.mark.broker
async def test_a_context_comes_back_on_the_decision(guard: Running) -> None:
    """Beside the guard's own headers, unchanged; a request without one gets none, and one that is no context is dropped."""
    (of,) = numbers(1)
    asked = [request(of) for _ in range(4)]
    await put(guard.client, asked[0], SAMPLED, STATE, ("x-mine", b"1"))
    await put(guard.client, asked[1])
    await put(guard.client, asked[2], ("traceparent", b"00-nonsense"), STATE)
    await put(guard.client, asked[3], UNSAMPLED)
    found = [dict((await answer(guard.client, one["request_id"])).headers) for one in asked]
    own = {"input-offset", "request-digest"}
    assert [{name: value for name, value in one.items() if name not in own} for one in found] == [
        dict([SAMPLED, STATE]), {}, {}, dict([UNSAMPLED]),
    ]  # fmt: skip


@pytest.mark.broker
async def test_a_repeat_has_the_context_of_its_own_request(guard: Running) -> None:
    """The value is that of the first answer, byte for byte; the recall of an approval carries none."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = request(of)
    await put(guard.client, asked, SAMPLED)
    first = await answer(guard.client, asked["request_id"])
    await put(guard.client, asked, UNSAMPLED)
    second = await answer(guard.client, asked["request_id"], 2)
    assert (dict(first.headers)["traceparent"], dict(second.headers)["traceparent"]) == (SAMPLED[1], UNSAMPLED[1])
    assert first.value == second.value
    await guard.client.put_all([objection(of)])
    recalled = await answer(guard.client, asked["request_id"], 3)
    assert json.loads(recalled.value)["kind"] == "recall"
    assert "traceparent" not in dict(recalled.headers)


@pytest.mark.broker
async def test_a_rejection_carries_the_context_of_its_record(kafka: str, redis_url: str) -> None:
    """Of a request, of a request with other content, of a fact and of a reference entry."""
    async with running_scene(kafka, redis_url, partitions=1) as guard:
        (of,) = numbers(1)
        asked = request(of)
        await put(guard.client, asked)
        await answer(guard.client, asked["request_id"])
        await put(guard.client, asked | {"subject": "telecom"}, SAMPLED)
        for topic in ("call-requests", "objections", "parties"):
            await guard.client.put_raw(topic, of.encode(), b"{", headers=[SAMPLED, STATE])
        await wait_for(lambda: len(guard.client.rejected) == 4, within_s=20)
        consumer = guard.client._consumer
        ends = await consumer.end_offsets([tp for tp in consumer.assignment() if tp.topic.endswith(REJECTED)])
        assert sum(ends.values()) == 4
        found = await read_again(guard, REJECTED)
        assert sorted(tuple(record.headers) for record in found) == sorted([(SAMPLED,)] + 3 * [(SAMPLED, STATE)])


async def read_again(guard: Running, topic: str) -> list[Any]:
    """All records of a topic of one partition."""
    tp = TopicPartition(guard.client.settings.topic(topic), 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=guard.client.settings.kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        end = (await consumer.end_offsets([tp]))[tp]
        found: list[Any] = []
        while len(found) < end:
            found += (await consumer.getmany(tp, timeout_ms=500)).get(tp, [])
        return found
    finally:
        await consumer.stop()


@pytest.mark.broker
async def test_what_is_replayed_after_a_crash_is_the_same_with_its_context(
    kafka: str, redis_url: str, prefix: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision was stored and not published: the next owner publishes these bytes, with the context of the request, read again."""
    settings = guard_settings(kafka, redis_url, prefix, partitions=1)
    await ensure_topics(settings)
    client = Client(settings)
    await client.start()
    try:
        (of,) = numbers(1)
        await client.put_all(REFERENCE)
        asked = request(of)
        async with running_worker(settings) as first:
            stored = asyncio.Event()

            async def stalled(_outputs: object) -> None:
                stored.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(first.guard.publisher, "publish", stalled)
            await put(client, asked, SAMPLED, STATE)
            await asyncio.wait_for(stored.wait(), 20)
            kept = (await first.guard.store.kept(0)).journal
        assert client.records == []
        async with running_worker(settings):
            record = await answer(client, asked["request_id"])
        (item,) = kept.values()
        assert record.value == item.record
        assert dict(record.headers) == {
            "input-offset": str(item.offset).encode(), "request-digest": item.fingerprint, **dict([SAMPLED, STATE]),
        }  # fmt: skip
    finally:
        await client.stop()


@pytest.mark.broker
async def test_over_http_a_context_goes_through_to_the_decision(guard: Running, collector: Collector) -> None:
    """The gateway's span is the parent of what happens in the guard; without a collector the caller's own context goes on."""
    (of,) = numbers(1)

    async def asked(http: Any, path: str, value: Any, **headers: str) -> Any:
        answer = await http.post(path, content=encode(value), headers={"Authorization": f"Bearer {OPERATE}", **headers})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    heard = {"traceparent": SAMPLED[1].decode(), "tracestate": STATE[1].decode()}
    async with served(guard) as gate:
        one = await asked(gate.http, "/v1/call-requests", request(of), **heard)
        two = await asked(gate.http, "/v1/call-requests", request(of), traceparent=UNSAMPLED[1].decode())
        three = await asked(gate.http, "/v1/call-requests", request(of), traceparent="nonsense")
        await asked(gate.http, "/v1/invitations", invitation(of)[1], **heard)
    spans = {made.span.name: made for made in collector.spans}
    ours = spans["ringfence.ask"].span
    found = [dict((await answer(guard.client, decision["request_id"])).headers) for decision in (one, two, three)]
    assert found[0]["traceparent"].decode() == f"00-{TRACE}-{ours.span_id.hex()}-01"
    assert found[0]["tracestate"] == STATE[1]
    assert found[1]["traceparent"] == UNSAMPLED[1]
    assert "traceparent" not in found[2]
    assert spans["ringfence.report"].told == {"ringfence.topic": "invitations"}
    assert spans.keys() == {"ringfence.ask", "ringfence.report"}
    assert of[1:].encode() not in b"".join(collector.bodies)


@pytest.mark.broker
async def test_a_worker_makes_a_span_for_each_recorded_request(kafka: str, redis_url: str, collector: Collector) -> None:
    """And for no other."""
    async with running_scene(kafka, redis_url, partitions=1) as guard:
        (of,) = numbers(1)
        asked = [request(of) for _ in range(3)]
        for one, header in zip(asked, (SAMPLED, UNSAMPLED, None), strict=True):
            await put(guard.client, one, *([header] if header is not None else []))
            await guard.client.decision(one["request_id"])
    (made,) = collector.spans
    assert (made.span.trace_id.hex(), made.told["ringfence.decision"], made.told["ringfence.partition"]) == (TRACE, "blocked", 0)
    assert of[1:].encode() not in b"".join(collector.bodies)
