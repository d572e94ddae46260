"""The gateway: a real one over HTTP, on a real Kafka and Redis, with a real worker behind it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from ops.gateway.hub import Filter
from ops.gateway.limits import BULK_BYTES, RECORD_BYTES
from ops.gateway.server import Server
from ops.topic_log import opened
from streams.topics import ensure_topics
from tests.harness import Client, Running, encode
from tests.scene import NOW, ask, consent, number, numbers, objection, party, release, request, running_scene
from tests.servers import wait_for

pytestmark = pytest.mark.broker

DIAL, REPORT, OPERATE = ("dial-secret-0123456789", "report-secret-0123456789", "operate-secret-0123456789")
KEYS = f"dialler dial {DIAL}; crm report {REPORT}; officer operate,report,dial {OPERATE}"


@dataclass
class Served:
    """A running guard with a gateway before it."""

    guard: Running
    server: Server
    http: httpx.AsyncClient

    async def post(self, path: str, value: Any, key: str = OPERATE) -> httpx.Response:
        """Send a record."""
        content = value if isinstance(value, bytes) else encode(value)
        return await self.http.post(path, content=content, headers=bearer(key))

    async def get(self, path: str, key: str = OPERATE, **params: Any) -> httpx.Response:
        """Ask."""
        return await self.http.get(path, params=params, headers=bearer(key))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def served(guard: Running, **settings: Any) -> AsyncIterator[Served]:
    """A gateway before a guard, until the block ends."""
    own = guard.client.settings.model_copy(update={"gateway": "127.0.0.1:0", "gateway_rate": 0.0, "gateway_wait_s": 10.0, **settings})
    server = Server(type(own).model_validate({**own.model_dump(), "api_keys": KEYS}))
    server.gateway.clock = guard.clock  # type: ignore[assignment]  # all that a clock is asked for is now()
    ready = asyncio.Event()
    serving = asyncio.create_task(server.run(ready.set))
    try:
        await wait_for(lambda: ready.is_set() or serving.done(), within_s=20)
        if serving.done():
            serving.result()
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            yield Served(guard, server, http)
    finally:
        server.stop()
        await serving
    assert server.failed is None


@pytest.fixture(scope="module")
async def guarded(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    async with running_scene(kafka, redis_url) as guard:
        yield guard


@pytest.fixture(scope="module")
async def gate(guarded: Running) -> AsyncIterator[Served]:
    async with served(guarded) as gate:
        yield gate


async def approved_number(gate: Served) -> str:
    (of,) = numbers(1)
    assert (await gate.post("/v1/consents", consent(of)[1], REPORT)).status_code == 202
    return of


# --- deciding -------------------------------------------------------------------------------------------------------------------


async def test_a_request_is_answered_with_the_record_that_stands_on_the_topic(gate):
    of = await approved_number(gate)
    asked = request(of)
    answer = await gate.post("/v1/call-requests", asked, DIAL)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["basis"] == "OK_CONSENT"
    assert answer.json() == await gate.guard.client.decision(asked["request_id"])


async def test_a_blocked_call_is_an_answer_and_no_error(gate):
    answer = await gate.post("/v1/call-requests", request(numbers(1)[0]), DIAL)
    assert (answer.status_code, answer.json()["decision"], answer.json()["reasons"]) == (200, "blocked", ["E_NO_BASIS"])


async def test_a_request_sent_again_gets_the_same_bytes(gate):
    asked = request(await approved_number(gate))
    first, again = [await gate.post("/v1/call-requests", asked, DIAL) for _ in range(2)]
    assert first.json()["decision"] == "approved"
    assert first.content == again.content


async def test_after_its_recall_an_approved_request_is_answered_with_the_recall(gate):
    asked = request(await approved_number(gate))
    assert (await gate.post("/v1/call-requests", asked, DIAL)).json()["decision"] == "approved"
    assert (await gate.post("/v1/objections", objection(asked["number"])[1], REPORT)).status_code == 202
    answer = (await gate.post("/v1/call-requests", asked, DIAL)).json()
    assert (answer["decision"], answer["kind"], answer["reasons"]) == ("blocked", "recall", ["E_OBJECTION"])


async def test_an_objection_that_was_accepted_blocks_the_very_next_request(gate):
    for _ in range(10):
        of = await approved_number(gate)
        assert (await gate.post("/v1/objections", objection(of)[1], REPORT)).status_code == 202
        assert (await gate.post("/v1/call-requests", request(of), DIAL)).json()["reasons"] == ["E_OBJECTION"]


async def test_the_same_id_with_other_content_is_a_conflict(gate):
    asked = request(numbers(1)[0])
    await gate.post("/v1/call-requests", asked, DIAL)
    answer = await gate.post("/v1/call-requests", {**asked, "subject": "insurance"}, DIAL)
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (409, "conflict", asked["request_id"])


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", "json", ""),
        (b"[]", "type", ""),
        (b'{"number": "+31612345678", "number": "+31612345678"}', "json", ""),
        (encode({**request(number(1)), "number": "0687654321"}), "format", "number"),
        (encode({**request(number(1)), "dial_at": "2026-11-23T13:00:00"}), "format", "dial_at"),
        (encode({**request(number(1)), "cli": {"withheld": "no"}}), "type", "cli.withheld"),
        (encode({key: value for key, value in request(number(1)).items() if key != "campaign_id"}), "missing", "campaign_id"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_contracts_code_and_goes_nowhere(gate, body, code, field):
    answer = await gate.post("/v1/call-requests", body, DIAL)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert (answer.json()["code"], answer.json()["field"]) == (code, field)
    assert "687654321" not in answer.text


async def test_many_ask_at_once_and_each_gets_its_own_answer(gate):
    of = await approved_number(gate)
    others = numbers(60)
    asked = [request(one) for other in others for one in (other, of)]
    answers = await asyncio.gather(*(gate.post("/v1/call-requests", one, DIAL) for one in asked))
    assert [answer.json()["request_id"] for answer in answers] == [one["request_id"] for one in asked]
    assert {answer.json()["decision"] for answer, one in zip(answers, asked, strict=True) if one["number"] != of} == {"blocked"}


async def test_bulk_answers_line_by_line_in_order(gate):
    of = await approved_number(gate)
    lines = [encode(request(of)), b"not json", encode(request(numbers(1)[0])), encode({**request(of), "number": "x"}), b"", b"  "]
    answer = await gate.post("/v1/call-requests/bulk", b"\n".join(lines), DIAL)
    assert answer.status_code == 200
    answered = [json.loads(line) for line in answer.text.splitlines()]
    assert [line.get("decision") or line["error"]["code"] for line in answered] == ["approved", "json", "blocked", "format"]
    assert answered[0]["request_id"] == json.loads(lines[0])["request_id"]
    assert answered[3]["request_id"] == json.loads(lines[3])["request_id"]


async def test_a_large_bulk_does_not_stand_still_with_a_client_that_sends_all_before_it_reads(gate):
    lines = [encode(request(of)) for of in numbers(6000)]
    answer = await gate.post("/v1/call-requests/bulk", b"\n".join(lines), DIAL)
    assert [json.loads(line)["request_id"] for line in answer.text.splitlines()] == [json.loads(line)["request_id"] for line in lines]


async def test_without_a_decision_in_time_the_answer_is_503_and_never_an_approval(guarded, kafka):
    """Nobody decides on these topics: they have no worker."""
    settings = guarded.client.settings.model_copy(update={"topic_prefix": f"{guarded.client.settings.topic_prefix}idle."})
    await ensure_topics(settings)
    idle = Running(guarded.worker, cast("Client", SimpleNamespace(settings=settings)), guarded.clock)
    async with served(idle, gateway_wait_s=0.5) as gate:
        answer = await gate.post("/v1/call-requests", request(numbers(1)[0]), DIAL)
        assert (answer.status_code, answer.json()["code"]) == (503, "S_STATE_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        bulk = await gate.post("/v1/call-requests/bulk", encode(request(numbers(1)[0])), DIAL)
        assert json.loads(bulk.text)["error"]["code"] == "S_STATE_UNAVAILABLE"
        assert gate.server.gateway.asking.waiting == 0


# --- facts ----------------------------------------------------------------------------------------------------------------------


async def test_a_fact_is_accepted_when_kafka_has_it(gate):
    of, fact = numbers(1)[0], None
    fact = consent(of)[1]
    answer = await gate.post("/v1/consents", fact, REPORT)
    assert answer.status_code == 202
    told = answer.json()
    assert (told["topic"], told["event_id"]) == ("consents", fact["event_id"])
    assert isinstance(told["offset"], int)


async def test_reference_entries_and_their_removal_are_an_operators(gate):
    entry = party("gone")[1]
    assert (await gate.post("/v1/parties", entry, REPORT)).status_code == 403
    assert (await gate.post("/v1/parties", entry)).status_code == 202
    await wait_for(lambda: "gone" in gate.guard.worker.guard.reference.parties, within_s=10)
    assert (await gate.http.delete("/v1/parties/gone", headers=bearer(OPERATE))).status_code == 202
    await wait_for(lambda: "gone" not in gate.guard.worker.guard.reference.parties, within_s=10)


async def test_a_broken_fact_is_refused_with_field_and_code(gate):
    answer = await gate.post("/v1/objections", {"number": numbers(1)[0]}, REPORT)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "missing", "event_id")


async def test_an_operator_releases_a_suspended_number(gate):
    of = numbers(1)[0]
    await gate.guard.client.put_raw("objections", of.encode(), b"broken")
    await wait_for_async(gate, f"/v1/numbers/{of}", lambda state: state["suspended"])
    shown = (await gate.get("/v1/quarantine")).json()
    assert {"topic": "objections", "code": "json"}.items() <= shown["suspended"][-1]["causes"][-1].items()
    assert of not in json.dumps(shown)
    assert (await gate.post("/v1/quarantine-releases", release(of)[1], REPORT)).status_code == 403
    assert (await gate.post("/v1/quarantine-releases", release(of)[1])).status_code == 202
    await wait_for_async(gate, f"/v1/numbers/{of}", lambda state: not state["suspended"])


async def wait_for_async(gate: Served, path: str, condition: Any, within_s: float = 10) -> Any:
    """Ask again and again until an answer is as it should be."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        answer = await gate.get(path)
        if answer.status_code == 200 and condition(answer.json()):
            return answer.json()
        assert asyncio.get_running_loop().time() < deadline, answer.text


# --- access ---------------------------------------------------------------------------------------------------------------------


async def test_nothing_is_to_be_had_without_a_key_but_health(gate):
    paths = (await gate.get("/v1/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            for headers in ({}, bearer("wrong-secret-0123456789"), {"Authorization": f"Basic {OPERATE}"}):
                answer = await gate.http.request(method, path.replace("{number}", number(1)).replace("{key}", "x"), headers=headers)
                assert answer.status_code == (200 if path in ("/livez", "/readyz") else 401), (method, path)
    assert (await gate.http.get("/")).status_code == 401
    assert (await gate.http.get("/static/app.js")).status_code in (401, 404)
    assert (await gate.http.get("/static/..%2f..%2fkeys.py", headers=bearer(OPERATE))).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/call-requests", {DIAL, OPERATE}),
        ("POST", "/v1/consents", {REPORT, OPERATE}),
        ("POST", "/v1/campaigns", {OPERATE}),
        ("GET", "/v1/overview", {OPERATE}),
        ("GET", "/v1/numbers/%2B31612345678", {OPERATE}),
        ("GET", "/v1/attribution.csv", {OPERATE}),
    ],
)
async def test_a_scope_opens_its_own_doors_only(gate, method, path, allowed):
    for key in (DIAL, REPORT, OPERATE):
        answer = await gate.http.request(method, path, content=b"{}" if method == "POST" else None, headers=bearer(key))
        assert (answer.status_code != 403) == (key in allowed), (key, answer.text)


async def test_a_key_may_ask_so_often_and_is_told_when_to_come_back(guarded):
    async with served(guarded, gateway_rate=5.0) as gate:
        answers = [await gate.get("/v1/overview") for _ in range(12)]
        assert [answer.status_code for answer in answers[:5]] == [200] * 5
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await gate.get("/v1/openapi.json", DIAL)).status_code == 200  # another key has its own


async def test_what_is_too_large_is_not_taken_in(gate):
    huge = b'{"request_id": "' + b"x" * RECORD_BYTES + b'"}'
    assert (await gate.post("/v1/call-requests", huge, DIAL)).status_code == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2 * BULK_BYTES // 65536):
            yield b"\n" * 65536

    answer = await gate.http.post("/v1/call-requests/bulk", content=endless(), headers=bearer(DIAL))
    assert answer.status_code == 413


async def test_the_cookie_reads_and_does_nothing_else(gate):
    async with httpx.AsyncClient(base_url=gate.server.url) as browser:
        assert (await browser.post("/login", data={"key": DIAL})).status_code == 401
        signed_in = await browser.post("/login", data={"key": OPERATE})
        assert signed_in.status_code == 204
        assert {"HttpOnly", "SameSite=strict"} <= set(signed_in.headers["set-cookie"].split("; "))
        assert OPERATE not in signed_in.headers["set-cookie"]
        assert (await browser.get("/v1/overview")).status_code == 200
        assert (await browser.post("/v1/objections", content=encode(objection(number(1))[1]))).status_code == 401
        name, expires, seal = browser.cookies["ringfence"].split(".")
        for forged in (f"{name}.{int(expires) + 1}.{seal}", f"dialler.{expires}.{seal}", "x", f"{name}.1.{seal}"):
            answer = await gate.http.get("/v1/overview", headers={"Cookie": f"ringfence={forged}"})
            assert answer.status_code == 401
        await browser.post("/logout")
        assert (await browser.get("/v1/overview")).status_code == 401


# --- looking --------------------------------------------------------------------------------------------------------------------


async def test_a_numbers_state_is_masked_unless_asked_for_in_full(gate):
    of = await approved_number(gate)
    await gate.post("/v1/call-requests", request(of), DIAL)
    state = await wait_for_async(gate, f"/v1/numbers/{of}", lambda state: state["consents"])
    assert state["number"] == f"+31{'*' * 7}{of[-2:]}"
    assert (state["consents"][0]["at"], state["consents"][0]["person_ref"]) == ("2026-11-20T10:00:00Z", "***")
    assert state["decisions"][0]["decision"] == "approved"
    assert of[1:] not in json.dumps(state)
    full = (await gate.get(f"/v1/numbers/{of}", unmasked="true")).json()
    assert (full["number"], full["consents"][0]["person_ref"]) == (of, "p-1")


@pytest.mark.parametrize(
    "path", ["/v1/numbers/0612345678", "/v1/rejected?limit=0", "/v1/rejected?limit=x", "/v1/decisions/stream?recent=-1"]
)
async def test_a_parameter_that_makes_no_sense_is_refused(gate, path):
    assert (await gate.http.get(path, headers=bearer(OPERATE))).status_code == 422


async def test_the_overview_counts_what_was_decided(gate):
    before = (await gate.get("/v1/overview")).json()
    asked = request(numbers(1)[0])
    await gate.post("/v1/call-requests", asked, DIAL)
    after = (await gate.get("/v1/overview")).json()
    assert after["figures"]["blocked"] == before["figures"].get("blocked", 0) + 1
    assert sum(after["over_time"]["blocked"]) == after["figures"]["blocked"]
    roles = {(party["role"], party["party_id"]) for party in after["figures"]["parties"]}
    assert {("advertiser", "A"), ("campaign", "c-1")} <= roles
    text = (await gate.get("/v1/attribution.csv")).text
    assert text.splitlines()[0] == "role,id,name,approved,blocked,share approved"
    assert any(line.startswith("advertiser,A,A,") for line in text.splitlines())


async def test_rejected_events_are_listed_newest_first_and_masked(gate):
    of = numbers(1)[0]
    await gate.guard.client.put_raw("callees", of.encode(), encode({"number": of}))
    await wait_for(lambda: any(one["key"] == of for one in gate.guard.client.rejected), within_s=10)
    listed = (await gate.get("/v1/rejected")).json()["rejected"]
    assert (listed[0]["topic"], listed[0]["error"]["code"]) == ("callees", "missing")
    assert of not in json.dumps(listed)


async def test_ready_and_alive_say_so_without_a_key(gate):
    assert (await gate.http.get("/livez")).json() == {"live": True}
    await wait_for(lambda: gate.server.gateway.feed.trouble is None, within_s=10)
    assert (await gate.http.get("/readyz")).json() == {"ready": True, "trouble": None}


# --- the stream of events -------------------------------------------------------------------------------------------------------


class Reader:
    """A reader of the event stream: what came, as (event, id, data)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.opened = asyncio.Event()

    async def read(self, gate: Served, params: dict[str, Any], headers: dict[str, str]) -> None:
        async with gate.http.stream("GET", "/v1/decisions/stream", params=params, headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            self.opened.set()
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "data" in fields:
                    self.events.append((fields["event"], fields["id"], json.loads(fields["data"])))
                    fields = {}

    def ids(self) -> list[str]:
        return [data["request_id"] for _, _, data in self.events]


@asynccontextmanager
async def reading(gate: Served, key: str = OPERATE, last: str | None = None, **params: Any) -> AsyncIterator[Reader]:
    reader = Reader()
    headers = {**bearer(key), **({"Last-Event-ID": last} if last is not None else {})}
    task = asyncio.create_task(reader.read(gate, params, headers))
    try:
        await wait_for(lambda: reader.opened.is_set() or task.done(), within_s=10)
        if task.done():
            task.result()
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_decisions_and_recalls_come_as_events_with_masked_numbers(gate):
    of = await approved_number(gate)
    async with reading(gate, DIAL) as reader:
        asked = request(of, request_id=f"q-{of[1:]}")
        await gate.post("/v1/call-requests", asked, DIAL)
        await gate.post("/v1/objections", objection(of)[1], REPORT)
        await wait_for(lambda: len(reader.events) >= 2, within_s=10)
    (kind, _, decision), (last_kind, _, recall) = reader.events[:2]
    assert (kind, decision["decision"], last_kind, recall["reasons"]) == ("decision", "approved", "recall", ["E_OBJECTION"])
    assert of[1:] not in json.dumps([decision, recall])
    async with reading(gate, recent=5, unmasked="true") as reader:
        await wait_for(lambda: of in json.dumps(reader.events), within_s=10)
    assert (await gate.get("/v1/decisions/stream", DIAL, unmasked="true")).status_code == 403


async def test_a_filter_lets_through_what_was_asked_for(gate):
    of, other = await approved_number(gate), numbers(1)[0]
    async with reading(gate, decision="blocked", reason=["E_NO_BASIS", "E_MINOR"], advertiser="A") as reader:
        asked = [request(of), request(other), request(other, advertiser_id="B")]
        for one in asked:
            await gate.post("/v1/call-requests", one, DIAL)
        await wait_for(lambda: asked[1]["request_id"] in reader.ids(), within_s=10)
        await ask(gate.guard.client, other)
        await wait_for(lambda: len(reader.events) >= 2, within_s=10)
    assert asked[0]["request_id"] not in reader.ids()
    assert asked[2]["request_id"] not in reader.ids()


async def test_a_reader_that_was_away_gets_what_it_missed_and_goes_on_live(gate):
    async with reading(gate) as reader:
        first = await ask(gate.guard.client, numbers(1)[0])
        await wait_for(lambda: first["request_id"] in reader.ids(), within_s=10)
    last = reader.events[-1][1]
    missed = [(await ask(gate.guard.client, of))["request_id"] for of in numbers(20)]
    async with reading(gate, last=last) as reader:
        await wait_for(lambda: set(missed) <= set(reader.ids()), within_s=20)
        live = await ask(gate.guard.client, numbers(1)[0])
        await wait_for(lambda: live["request_id"] in reader.ids(), within_s=10)
    positions = [place.partition("~")[0] for _, place, _ in reader.events]
    assert len(set(positions)) == len(positions)


async def test_a_last_event_id_that_is_none_of_ours_is_refused(gate):
    answer = await gate.http.get("/v1/decisions/stream", headers={**bearer(OPERATE), "Last-Event-ID": "17"})
    assert answer.status_code == 422


async def test_a_reader_that_takes_nothing_costs_the_others_nothing_and_is_let_go(gate, monkeypatch):
    monkeypatch.setattr("ops.gateway.hub._WAITING_MAX", 50)
    hub = gate.server.gateway.feed.hub
    dropped = hub.dropped
    with hub.subscribe(Filter()) as vanished:
        async with reading(gate) as reader:
            for _ in range(4):
                asked = [request(of) for of in numbers(20)]
                answers = await asyncio.gather(*(gate.post("/v1/call-requests", one, DIAL) for one in asked))
                assert {answer.status_code for answer in answers} == {200}
                await wait_for(lambda: {one["request_id"] for one in asked} <= set(reader.ids()), within_s=10)  # noqa: B023  # now
        assert vanished.overflowed
        assert await vanished.take(0.1) == []
    assert hub.dropped == dropped + 1


async def test_ten_thousand_malformed_requests_leave_it_standing(gate):
    bodies = [b"{", b"\xff\xfe", b'{"number": 1}', b"[" * 300, encode({**request(number(2)), "dial_at": NOW[:-1]})]

    async def several(count: int) -> set[int]:
        return {(await gate.post("/v1/call-requests", bodies[i % len(bodies)], DIAL)).status_code for i in range(count)}

    statuses = await asyncio.gather(*(several(500) for _ in range(20)))
    assert set().union(*statuses) == {422}
    assert (await gate.post("/v1/call-requests", request(numbers(1)[0]), DIAL)).status_code == 200


async def test_a_gateway_that_stops_ends_its_streams_at_once(guarded):
    started = asyncio.get_running_loop().time()
    async with served(guarded) as gate:
        context = reading(gate)
        reader = await context.__aenter__()
        assert reader.events == []
        gate.server.stop()
        await wait_for(lambda: gate.server.gateway.feed.hub.streams == 0, within_s=5)
        await context.__aexit__(None, None, None)
    assert asyncio.get_running_loop().time() - started < 30  # its own time-out would be 10 s a stream


# --- the process ----------------------------------------------------------------------------------------------------------------


@contextmanager
def gateway_process(guarded: Running, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``ringfence gateway`` in a process of its own, killed at the end."""
    settings = guarded.client.settings
    own = {
        "RINGFENCE_KAFKA": settings.kafka,
        "RINGFENCE_REDIS": settings.redis.get_secret_value(),
        "RINGFENCE_REDIS_PREFIX": settings.redis_prefix,
        "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
        "RINGFENCE_PARTITIONS": str(settings.partitions),
        "RINGFENCE_EMBEDDED": "1",
        "RINGFENCE_GATEWAY": "127.0.0.1:0",
        "RINGFENCE_API_KEYS": KEYS,
        **environment,
    }
    command = [sys.executable, "-m", "ops.cli", "gateway"]
    process = subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_a_killed_gateway_loses_nothing_that_it_had_accepted(guarded):
    with gateway_process(guarded) as process:
        assert process.stdout is not None
        url = (await asyncio.to_thread(process.stdout.readline)).removeprefix("ready ").strip()
        accepted: list[str] = []

        async def report(http: httpx.AsyncClient) -> None:
            while True:
                event = consent(numbers(1)[0])[1]
                try:
                    answer = await http.post("/v1/consents", content=encode(event), headers=bearer(REPORT))
                except httpx.TransportError:
                    return
                if answer.status_code == 202:
                    accepted.append(event["event_id"])

        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            reports = [asyncio.create_task(report(http)) for _ in range(8)]
            await wait_for(lambda: len(accepted) >= 100, within_s=30)
            process.kill()
            await asyncio.gather(*reports)
    async with opened(guarded.client.settings, "consents") as log:
        held = {json.loads(record.value or b"")["event_id"] async for record in log.records()}
    assert set(accepted) <= held


def test_a_gateway_without_keys_or_with_a_bad_one_says_how_to_make_one(guarded):
    for keys, told in (
        ("", "answers nobody without a key"),
        ("me dial short", "20 or more"),
        ("me fly 01234567890123456789", "no scope 'fly'"),
        ("me dial", "want NAME SCOPE"),
        ("me dial 01234567890123456789; me report 98765432109876543210", "two API keys"),
    ):
        with gateway_process(guarded, RINGFENCE_API_KEYS=keys) as process:
            _, err = process.communicate(timeout=60)
        assert (process.returncode, err.count("\n")) == (3, 1), err
        assert told in err
        assert "01234567890123456789" not in err


async def test_a_taken_address_and_a_missing_certificate_end_the_start_with_the_reason(gate, guarded):
    taken = f"127.0.0.1:{gate.server.port}"
    for environment, told in (
        ({"RINGFENCE_GATEWAY": taken}, taken),
        ({"RINGFENCE_GATEWAY_TLS_CERT": "/nowhere.pem", "RINGFENCE_GATEWAY_TLS_KEY": "/nowhere.pem"}, "RINGFENCE_GATEWAY_TLS_CERT"),
        ({"RINGFENCE_KAFKA": "127.0.0.1:1"}, "127.0.0.1:1"),
    ):
        with gateway_process(guarded, **environment) as process:
            _, err = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == 3, err
        assert told in err
        assert "Unclosed" not in err


# --- explaining -----------------------------------------------------------------------------------------------------------------


async def test_a_decision_is_explained_in_either_language_also_by_what_the_stream_shows_of_it(gate):
    of = await approved_number(gate)
    await gate.post("/v1/objections", objection(of)[1], REPORT)
    asked = request(of, request_id=f"q-{of[1:]}")
    async with reading(gate) as reader:
        await gate.post("/v1/call-requests", asked, DIAL)
        await wait_for(lambda: any(data["reasons"] == ["E_OBJECTION"] for _, _, data in reader.events), within_s=10)
    _, place, shown = next(event for event in reader.events if event[2]["reasons"] == ["E_OBJECTION"])
    assert of[1:] not in shown["request_id"]
    path = f"/v1/decisions/{shown['request_id']}/explanation"
    told = [(await gate.get(path, at=place, lang=lang)).json() for lang in ("en", "nl")]
    assert told[0]["outcome"] == told[1]["outcome"] == "blocked"
    assert told[0] != told[1]
    assert of[1:] not in json.dumps(told)
    assert (await gate.get(f"/v1/decisions/{asked['request_id']}/explanation")).status_code == 200
    assert (await gate.get("/v1/decisions/nobody-asked/explanation")).status_code == 404
    assert (await gate.get(path, at="here")).status_code == (await gate.get(path, lang="fr")).status_code == 422


async def test_the_codes_are_told_in_either_language(gate):
    names = [(await gate.get("/v1/codes", DIAL, lang=lang)).json()["E_OBJECTION"]["name"] for lang in ("en", "nl")]
    assert len(set(names)) == 2


async def test_what_a_code_means_is_told_with_the_law_of_today(gate):
    texts = (await gate.get("/v1/codes", DIAL)).json()
    assert "09:00 to 22:00 from Monday to Friday" in texts["E_TIME_WINDOW"]["meaning"]
    assert "since 1 July 2026" in texts["E_REL_ABOLISHED"]["meaning"]
    assert texts["E_CONSENT_PRETICKED"]["meaning"].startswith("The consent came")
