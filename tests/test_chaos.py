"""The storm's own parts: schedule, traffic, proxy, recovery, report. The storm itself is ``make chaos``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from chaos.fleet import Fleet
from chaos.inject import Injected
from chaos.lag import Lag
from chaos.load import Orders, run_load, send_all
from chaos.proxy import Proxy
from chaos.recovery import Recovery, recoveries
from chaos.report import as_markdown, faults_as_json, per_kind, shortcomings, told_by
from chaos.schedule import DURATIONS_S, KINDS, plan
from chaos.storm import Options, Storm
from chaos.survey import survey
from chaos.traffic import Put, Traffic
from config.rulebook import load_rulebook
from rules.decide import decide
from rules.errors import InputError
from rules.events import FACT_MODELS, REFERENCE_MODELS, REQUEST_TOPIC, parse_json, read_event
from rules.facts import NumberFacts
from rules.instants import SECOND, parse_instant
from rules.reference import Reference
from rules.suspension import suspended_numbers
from streams.embedded import EmbeddedKafka, free_port
from streams.partitioner import partition_of
from streams.topics import APPROVED, BLOCKED, REJECTED, ensure_topics
from tests.harness import guard_settings
from tests.servers import wait_for

ROOT = Path(__file__).parent.parent
SHORT_S, LONG_S = 95.0, 865.0
PARTITIONS = 8
NOW = parse_instant("2026-11-23T09:00:00Z")
RATE = 200.0


# --- the schedule ---------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_schedule():
    """In this process and in any other; another seed or length gives another."""
    assert plan(3, SHORT_S) == plan(3, SHORT_S)
    assert plan(3, SHORT_S) != plan(4, SHORT_S)
    assert plan(3, SHORT_S) != plan(3, LONG_S)
    code = f"from chaos.schedule import plan; print(plan(3, {SHORT_S}))"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(plan(3, SHORT_S))


@pytest.mark.parametrize("window_s", [SHORT_S, 200.0, LONG_S])
def test_every_kind_of_fault_happens_and_ends_in_the_window(window_s: float):
    """Whatever the seed; in a long window nearly equally often, some two at once, and some pauses outlast the session."""
    for seed in range(200):
        faults = plan(seed, window_s)
        counts = Counter(fault.kind for fault in faults)
        assert counts.keys() == set(KINDS)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
        assert faults[0].at_s == 0
        for fault in faults:
            low, high = DURATIONS_S[fault.kind]
            assert low <= fault.duration_s <= high
            assert fault.at_s + fault.duration_s <= window_s
            assert 0 <= fault.pick < 1
            assert (fault.delay_ms in range(50, 501)) == fault.kind.endswith("delay")
        assert max(fault.duration_s for fault in faults if fault.kind == "pause") > 6
        gaps = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(faults)]
        assert min(gaps) <= 1
        assert sum(gap > 5 for gap in gaps) >= len(gaps) / 2


def test_a_window_too_short_for_every_kind_is_refused():
    """Rather than leave one out."""
    with pytest.raises(ValueError, match="too short for 10 faults"):
        plan(1, 30)


# --- the traffic ----------------------------------------------------------------------------------------------------------------


def sent(seed: int, seconds: float) -> list[tuple[float, Put]]:
    """What a run sends, with the seconds since its start."""
    traffic = Traffic(seed, RATE, PARTITIONS, numbers=2000)
    before = [(0.0, put) for put in traffic.before()]
    turns = ((turn / RATE, traffic.turn(NOW + round(turn / RATE * SECOND))) for turn in range(int(RATE * seconds)))
    return before + [(due_s, put) for due_s, puts in turns for put in puts]


def test_the_same_seed_gives_the_same_traffic():
    """Byte for byte where the clock is the same."""
    assert sent(5, 3) == sent(5, 3)
    assert sent(5, 3) != sent(6, 3)


def test_the_traffic_holds_everything_that_a_storm_needs():
    """Sound requests and facts, and each trouble: repeats, conflicts, misplaced and broken records, every way to object."""
    records = [put for _, put in sent(5, 60)]
    assert sum(put.topic == REQUEST_TOPIC for put in records) >= 60 * RATE
    assert {put.topic for put in records} == {REQUEST_TOPIC, *FACT_MODELS, *REFERENCE_MODELS} - {"invitations"}
    misplaced = [put for put in records if put.partition is not None]
    assert {put.topic for put in misplaced} == {REQUEST_TOPIC, "objections"}
    assert all(put.partition != partition_of(put.key, PARTITIONS) for put in misplaced)
    broken = Counter()
    fields = []
    for put in records:
        try:
            read_event(put.topic, put.key, put.value)
        except InputError:
            broken[put.topic] += 1
            assert put.topic == REQUEST_TOPIC or suspended_numbers(put.topic, put.key, put.value) == {put.key.decode()}
        else:
            fields.append((put.topic, parse_json(put.value)))
    assert broken.keys() == {REQUEST_TOPIC, "objections"}
    objections = [value for topic, value in fields if topic == "objections"]
    assert {value.get("scope") for value in objections} == {None, "whole_call_centre"}
    assert {value.get("advertiser_id") for value in objections} == {None, "A", "B"}
    assert any(value["kind"] == "withdrawn" for topic, value in fields if topic == "consents")
    assert any(value["result"] == "objected" for topic, value in fields if topic == "call-outcomes")
    requests = Counter((put.key, parse_json(put.value)["request_id"]) for put in records if is_sound_request(put))
    assert sum(count > 1 for count in requests.values()) > 100
    assert len({put.value for put in records if put.topic == REQUEST_TOPIC}) < sum(put.topic == REQUEST_TOPIC for put in records) - 100


def is_sound_request(put: Put) -> bool:
    return put.topic == REQUEST_TOPIC and put.value.endswith(b"}")


def test_objections_meet_live_approvals_and_approvals_do_not_run_out():
    """By the rules themselves: far above a fifth of the requests is approved, at the end as at the beginning."""
    book, reference = load_rulebook(), Reference()
    facts: dict[str, NumberFacts] = {}
    approved: list[bool] = []
    live: dict[str, float] = {}
    met = 0
    for due_s, put in sent(5, 90):
        if put.partition is not None:
            continue
        try:
            event, _ = read_event(put.topic, put.key, put.value)
        except InputError:
            continue
        now = NOW + round(due_s * SECOND)
        if put.topic in REFERENCE_MODELS:
            reference.put(put.topic, event)
        elif put.topic in FACT_MODELS:
            facts.setdefault(event.number, NumberFacts()).apply(event)
            stops = put.topic == "objections" or getattr(event, "kind", "") == "withdrawn" or getattr(event, "result", "") == "objected"
            met += stops and live.get(event.number, -60) > due_s - 60
        elif len(approved) % 10 == 0:
            decision = decide(event, facts.get(event.number, NumberFacts()), reference, book, now)
            approved.append(decision.approved)
            if decision.approved:
                live[event.number] = due_s
        else:
            approved.append(approved[-1])
    tenth = len(approved) // 10
    assert sum(approved[:tenth]) / tenth > 0.3
    assert sum(approved[-tenth:]) / tenth > 0.3
    assert met > 100


@pytest.mark.parametrize(("minutes", "rate", "option"), [(1.9, 1000.0, "--minutes"), (2.0, 49.0, "--rate")])
def test_an_option_that_makes_no_sense_is_named_before_anything_starts(minutes: float, rate: float, option: str, tmp_path: Path):
    """Two minutes hold every kind of fault, whatever the seed."""
    with pytest.raises(ValueError, match=option):
        Storm(Options(1, minutes, rate, tmp_path / "none"), print)
    assert len(Options(1, 2.0, 1000.0, tmp_path).schedule) == len(KINDS)
    assert not (tmp_path / "none").exists()


def test_a_rate_at_which_nothing_would_happen_is_refused():
    """What happens beside the requests is spaced by them."""
    with pytest.raises(ValueError, match="--rate: want 50"):
        Traffic(1, 10, PARTITIONS)


# --- the proxy ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that says what it is told."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def proxy(echo: int):
    with Proxy() as proxy:
        proxy.target = echo
        yield proxy


async def exchange(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], said: bytes) -> float:
    """Say something, wait for the echo; returns the seconds that it took."""
    reader, writer = streams
    began = time.monotonic()
    writer.write(said)
    async with asyncio.timeout(10):
        assert await reader.readexactly(len(said)) == said
    return time.monotonic() - began


async def connected(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_a_proxy_passes_everything_on(proxy: Proxy):
    """Megabytes in order, over several connections at once."""
    streams = [await connected(proxy) for _ in range(3)]
    said = bytes(range(256)) * 20_000
    await asyncio.gather(*(exchange(one, said) for one in streams))
    for _, writer in streams:
        writer.close()


async def test_a_cut_drops_connections_and_refuses_new_ones_until_it_is_mended(proxy: Proxy):
    """Those of before stay dropped."""
    reader, writer = before = await connected(proxy)
    await exchange(before, b"hello")
    proxy.cut()
    with contextlib.suppress(ConnectionError):
        assert await reader.read(1) == b""
    writer.close()
    with contextlib.suppress(ConnectionError):
        refused, refused_writer = await connected(proxy)
        refused_writer.write(b"hello")
        assert await refused.read(1) == b""
        refused_writer.close()
    proxy.mend()
    again = await connected(proxy)
    await exchange(again, b"hello")
    again[1].close()


async def test_answers_come_later_and_in_order_while_the_proxy_is_slow(proxy: Proxy):
    """Also those that are under way when it becomes faster again."""
    streams = await connected(proxy)
    assert await exchange(streams, b"fast") < 0.2
    proxy.slow(0.3)
    assert 0.3 <= await exchange(streams, b"slow") < 2
    reader, writer = streams
    writer.write(b"first")
    await asyncio.sleep(0.1)
    proxy.slow(0)
    writer.write(b"second")
    assert await reader.readexactly(11) == b"firstsecond"
    assert await exchange(streams, b"fast") < 0.2
    writer.close()


async def test_a_server_that_is_away_ends_the_client_s_connection(proxy: Proxy):
    """As the server itself would, rather than leave it open."""
    proxy.target = free_port()
    reader, writer = await connected(proxy)
    with contextlib.suppress(ConnectionError):
        assert await reader.read(1) == b""
    writer.close()


@pytest.mark.broker
@pytest.mark.slow
async def test_a_broker_tells_those_behind_the_proxy_to_come_through_it():
    """A cut stops them, and not those that connect directly; so it is after a restart."""
    with Proxy() as proxy, EmbeddedKafka(proxied_by=proxy.port) as kafka:
        proxy.target = kafka.proxied_port
        through = f"127.0.0.1:{proxy.port}"
        for restart in (False, True):
            if restart:
                kafka.kill()
                await asyncio.to_thread(kafka.start)
            assert await brokers(through) == [through]
            assert await brokers(kafka.address) == [kafka.address]
        proxy.cut()
        with pytest.raises(KafkaError):
            await brokers(through)
        assert await brokers(kafka.address) == [kafka.address]


async def brokers(address: str) -> list[str]:
    """What a client is told to connect to."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=2000)
    try:
        await admin.start()
        return [f"{broker['host']}:{broker['port']}" for broker in (await admin.describe_cluster())["brokers"]]
    finally:
        await admin.close()


# --- recovery and report --------------------------------------------------------------------------------------------------------

NEVER = float("inf")


def test_recovery_is_over_when_every_partition_has_answered_a_later_request():
    """The slowest partition counts; a request of before the fault does not."""
    waits = {0: [(9.0, 30.0), (11.0, 12.0), (13.0, 13.1)], 1: [(9.9, 10.1), (10.5, 17.5), (12.0, 17.0)]}
    assert recoveries(waits, [10.0]) == [Recovery(7.0, 7.0)]


def test_the_longest_wait_is_of_requests_sent_before_the_next_fault():
    """Each fault has its own."""
    waits = {0: [(1.0, 1.1), (2.0, 6.0), (11.0, 13.0), (12.0, 12.5)]}
    assert recoveries(waits, [1.0, 10.0]) == [Recovery(pytest.approx(0.1), 4.0), Recovery(2.5, 2.0)]


def test_what_is_never_answered_never_recovers():
    """Neither does a partition to which nothing was sent any more."""
    assert recoveries({0: [(1.0, NEVER)], 1: [(1.0, 2.0)]}, [0.5]) == [Recovery(None, None)]
    assert recoveries({0: [(1.0, 2.0)]}, [5.0]) == [Recovery(None, 0.0)]


def weathered() -> dict:
    """The report of a run in which all went well."""
    injected = [Injected(kind, index * 10.0, 100.0 + index * 10, 101.0 + index * 10, "") for index, kind in enumerate((*KINDS, "kill"))]
    costs = [Recovery(2.0, 3.0)] * len(KINDS) + [Recovery(6.0, 7.0)]
    faults = faults_as_json(injected, costs)
    return {
        "options": {"seed": 3, "minutes": 15, "rate": 1000, "calm": False},
        "faults": faults,
        "per_kind": per_kind(faults),
        "totals": {"requests_answered": 898_123, "answer_max_s": None},
        "audit_exit_code": 0,
        "audit": {
            "approved_share": 0.41,
            "counts": {"recalls": 812},
            "violations": {"lost": 0},
            "recall_latency_ms": {"count": 812, "p50": 31, "max": 9000},
        },
        "again": "python -m chaos --seed 3",
        "shortcomings": [],
    }


def test_a_report_has_each_kind_with_its_recovery():
    """Median and longest; what did not recover is counted apart."""
    report = weathered()
    assert report["per_kind"]["kill"] == {
        "count": 2,
        "recovery_median_s": 4.0,
        "recovery_max_s": 6.0,
        "longest_wait_s": 7.0,
        "not_recovered": 0,
    }
    unrecovered = per_kind(faults_as_json([Injected("kill", 0, 1, 1, "")], [Recovery(None, None)]))
    assert (unrecovered["kill"]["not_recovered"], unrecovered["kill"]["recovery_max_s"]) == (1, None)
    assert json.loads(json.dumps(report))["per_kind"].keys() == set(KINDS)


def test_a_storm_is_weathered_only_if_everything_held():
    """One sentence for each thing that did not."""
    assert shortcomings(weathered()) == []
    report = weathered()
    report |= {"audit_exit_code": 1, "audit": {"approved_share": 0.19, "counts": {"recalls": 99}, "violations": {"lost": 2, "late": 0}}}
    report["per_kind"]["redis-cut"]["count"] = 0
    assert len(shortcomings(report)) == 4
    report["options"]["minutes"] = 2
    assert len(shortcomings(report)) == 2
    assert shortcomings(report)[0] == "the audit is not clean (exit code 1): lost 2"
    report["options"]["calm"] = True
    assert len(shortcomings(report)) == 1


def test_an_audit_that_could_not_be_carried_out_is_no_clean_one():
    """Whatever it printed."""
    report = weathered() | {"audit_exit_code": 3, "audit": told_by(b"Traceback")}
    assert len(shortcomings(report)) == 3
    assert "| approved share | - |" in as_markdown(report)
    assert told_by(b'{"clean": true}') == {"clean": True}


def test_the_page_says_what_happened_and_how_to_do_it_again():
    """A row for each kind and each total."""
    page = as_markdown(weathered())
    assert "Weathered." in page
    assert "| kill | 2 | 4 | 6 | 7 | 0 |" in page
    assert "| requests answered | 898,123 |" in page
    assert "| recall latency p50 ms | 31 |" in page
    assert "violation" not in page
    assert "Again: `python -m chaos --seed 3`" in page
    assert "- no recalls" in as_markdown(weathered() | {"shortcomings": ["no recalls"]})


# --- workers, load and survey ---------------------------------------------------------------------------------------------------


async def test_a_worker_that_dies_is_started_again_and_its_death_told(tmp_path: Path):
    """One that was killed by plan apart from one that ended by itself, and from one that refused to start."""
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "cli.py").write_text(
        "import os, pathlib, sys, time\n"
        "sys.exit(int(os.environ['ENDS_WITH'])) if 'ENDS_WITH' in os.environ else None\n"
        "while True:\n pathlib.Path(os.environ['RINGFENCE_READY_FILE']).touch()\n time.sleep(0.05)\n"
    )
    fleet = Fleet({"PYTHONPATH": str(tmp_path)}, tmp_path)
    fleet.start("one")
    try:
        await fleet.until_ready(20)
        assert fleet.steady() == ["one"]
        fleet.pause("one")
        assert fleet.steady() == []
        fleet.resume("one")
        fleet.kill("one")
        await wait_for(lambda: fleet.starts == 2)
        await fleet.until_ready(20)
        assert fleet.leave("one") == -15
        fleet.environment = {**fleet.environment, "ENDS_WITH": "1"}
        fleet.join("one")
        await wait_for(lambda: len(fleet.crashes) == 1)
        fleet.environment = {**fleet.environment, "ENDS_WITH": "3"}
        fleet.join("one")
        await wait_for(lambda: fleet.refused_starts > 0)
    finally:
        fleet.stop(0)
    assert [(death.code, death.planned) for death in fleet.deaths[:3]] == [(-9, True), (-15, True), (1, False)]


@pytest.mark.broker
async def test_load_and_survey_agree_about_what_was_sent_and_answered(kafka: str, redis_url: str, prefix: str, tmp_path: Path):
    """Histories hold each acknowledged record once; answers are found by the offset of their request."""
    settings = guard_settings(kafka, redis_url, prefix)
    await ensure_topics(settings)
    histories = tmp_path / "histories.jsonl"
    before = list(Traffic(1, 200, settings.partitions, numbers=50).before())
    assert await send_all(settings, histories, before) == len(before)
    named = settings.model_dump(mode="json", include={"kafka", "topic_prefix", "partitions", "embedded"})
    began = time.time()
    load = await run_load(Orders(named, 1, 200.0, 1.0, 0.0, str(histories), ""))
    lines = [json.loads(line) for line in histories.read_text().splitlines()]
    assert load.unacknowledged == 0
    assert len(lines) == len(before) + sum(load.acknowledged.values())
    assert len({(line["topic"], line["partition"], line["offset"]) for line in lines}) == len(lines)
    requests = [line for line in lines if line["topic"] == REQUEST_TOPIC]
    assert len(requests) >= 200
    assert all(began <= line["sent_at"] <= line["acked_at"] <= time.time() for line in requests)

    async with Lag(settings) as lag:
        assert await wait_for(lag.look) == (len(requests), sum(line["topic"] in FACT_MODELS for line in lines))

    (unanswered, *others) = (line for line in requests if (line["partition"], line["offset"]) not in set(load.misplaced))
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for index, line in enumerate(others):
            topic, answer, header = APPROVED, b"{}", [("input-offset", str(line["offset"]).encode())]
            if index % 3 == 1:
                topic = BLOCKED
            elif index % 3 == 2:
                rejection = {"topic": REQUEST_TOPIC, "partition": line["partition"], "offset": line["offset"]}
                topic, answer, header = REJECTED, json.dumps(rejection).encode(), []
            for _ in range(2 if index == 0 else 1):
                await producer.send_and_wait(settings.topic(topic), answer, None, line["partition"], headers=header)
    found = await survey(settings, histories, load)
    assert found.unanswered == [(unanswered["partition"], unanswered["offset"])]
    waits = sorted(wait for waits in found.waits.values() for wait in waits)
    assert len(waits) == 1 + sum(index % 3 != 2 for index in range(len(others)))
    assert {answered for _, answered in waits if answered > time.time()} == {NEVER}
    assert all(began <= sent_at <= answered for sent_at, answered in waits)
    figures = found.figures()
    assert (figures["requests_answered"], figures["requests_unanswered"]) == (len(waits) - 1, 1)
    assert 0 <= figures["answer_p50_s"] <= figures["answer_p99_s"] <= figures["answer_max_s"] < 60
