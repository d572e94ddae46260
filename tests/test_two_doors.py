"""The same facts and requests give the same decisions, at the offline door, through a real Kafka, Faust and Redis, and to the auditor.

``RINGFENCE_TEST_REQUESTS`` sets how many requests go through the stream (100,000, about half as many numbers; 200,000 take five minutes
and were the measure of the promise).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from config.rulebook import load_rulebook
from config.settings import Settings
from ops.door import decide_line
from ops.worker import Worker
from rules.codes import BASIS_CODES, REASON_CODES
from rules.decide import decide
from rules.decision import Decision
from rules.events import FACT_MODELS, REFERENCE_KEYS, REQUEST_TOPIC, NumberEvent, ReferenceEntry, validate
from rules.facts import NumberFacts
from rules.instants import SECOND, parse_instant
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import Rulebook
from streams.topics import APPROVED, BLOCKED, REJECTED, ensure_topics
from tests.generate import TODAY, Resident, Town, in_order, offline_lines, utc_text
from tests.harness import SetClock, guard_settings, running_worker

ROOT = Path(__file__).resolve().parent.parent
REQUESTS = int(os.environ.get("RINGFENCE_TEST_REQUESTS", "100000"))
SEED = 20261123
#: Regimes of the past only; today nobody rests on them or is stopped by them.
OF_THE_PAST = {"OK_RELATIONSHIP", "OK_OPTOUT_PRE2021", "OK_OWN_CUSTOMER_PRE2021", "E_BMNR", "E_BMNR_SCRUB_STALE"}
EVERY_CODE = set(BASIS_CODES + REASON_CODES)
SAME = ("decision", "basis", "reasons", "warnings", "missing", "rules", "evidence", "regime", "valid_until")
STALLED_S = 60
Say = Callable[[str], None]

encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


@pytest.fixture
def say(pytestconfig) -> Say:
    """Prints at once, past pytest's capture: a run of minutes shows how it gets on, and its figures stay in the log."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def print_now(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(text, file=sys.stderr, flush=True)

    return print_now


@cache
def book() -> Rulebook:
    """The rulebook, read once."""
    return load_rulebook()


@cache
def town_reference() -> tuple[Town, Reference]:
    """The town and what is on file about its parties, campaigns and caller numbers."""
    town, reference = Town(SEED), Reference()
    for topic, value in town.references:
        reference.put(topic, cast("ReferenceEntry", validate(topic, value)))
    return town, reference


def facts_of(resident: Resident) -> NumberFacts:
    """The state that all facts of a number, read in their order, come to."""
    facts = NumberFacts()
    for topic, value in resident.facts:
        facts.apply(cast("NumberEvent", validate(topic, value)))
    if resident.broken:
        facts.suspend(1)
    for release in resident.releases:
        facts.apply(cast("NumberEvent", validate("quarantine-releases", release)), log_time_ms=2)
    return facts


def expected_decisions(resident: Resident) -> Iterator[Decision]:
    """What the code behind the offline door decides about a number's requests, at the instant of the stream's clock."""
    _, reference = town_reference()
    facts, now = facts_of(resident), parse_instant(utc_text(TODAY))
    for request in resident.requests:
        yield decide(cast("CallRequest", validate(REQUEST_TOPIC, request)), facts, reference, book(), now)


def digest(decision: dict[str, Any]) -> bytes:
    """Tells decisions apart; what was applied when it was decided is the stream's own business."""
    return hashlib.blake2b(_encode_sorted({**decision, "as_of": None}), digest_size=16).digest()


def codes_of(decision: dict[str, Any]) -> list[str]:
    """The basis, or every reason, and the warnings."""
    return [code for code in (decision["basis"], *decision["reasons"], *decision["warnings"]) if code]


def table(title: str, counts: Counter[str]) -> str:
    """Codes and how often they occurred, three to a line."""
    cells = [f"{code:<32}{count:>8}" for code, count in sorted(counts.items())]
    return "\n".join([f"\n{title}", *("   ".join(cells[start : start + 3]) for start in range(0, len(cells), 3))])


# --- offline --------------------------------------------------------------------------------------------------------------------------


def test_generated_lines_of_all_regimes_are_decided_offline_and_every_code_occurs(say):
    """20,000 lines on both sides of every border of dates: no error, three regimes, every basis and every reason."""
    counts, regimes = Counter[str](), Counter[str]()
    for line in offline_lines(SEED, 20_000):
        answer, is_decision = decide_line(encode(line), book())
        assert is_decision, (answer, line)
        decision = msgspec.json.decode(answer)
        assert decision["case"] == line["case"]
        assert (decision["basis"] is None) == bool(decision["reasons"]) == (decision["decision"] == "blocked"), line["case"]
        counts.update(codes_of(decision))
        regimes[decision["regime"]] += 1
    say(table(f"20,000 lines, regimes {dict(regimes)}", counts))
    assert set(regimes) - {None} == {"R1", "R2", "R3"}  # None: a day before 2009-10-01, which no rulebook covers
    assert EVERY_CODE - set(counts) == set()


def test_the_offline_door_decides_about_the_town_as_the_core_does():
    """Same facts and requests in lines of their own. The door's clock stands at dial_at, so requests too far or too old are no use."""
    town, _ = town_reference()
    compared = 0
    for position in range(3, 60_000, 29):
        resident = town.resident(position)
        if resident.broken:
            continue  # no line carries a record that cannot be read
        for request, expected in zip(resident.requests, expected_decisions(resident), strict=True):
            if {"S_DIAL_TOO_FAR", "S_REQUEST_EXPIRED"} & set(expected.reasons) or request["dial_at"] < utc_text(TODAY):
                continue
            needed = {request["campaign_id"], request["cli"]["number"]}
            facts = [
                {"topic": topic, "value": value}
                for topic, value in (*town.references, *resident.facts)
                if topic == "parties" or topic not in REFERENCE_KEYS or value[REFERENCE_KEYS[topic]] in needed
            ]
            answer, is_decision = decide_line(encode({"case": 1, "facts": facts, "request": request}), book())
            assert is_decision, answer
            decision = msgspec.json.decode(answer)
            assert {name: decision[name] for name in SAME} == {name: getattr(expected, name) for name in SAME}
            compared += 1
    assert compared > 3000


# --- through the stream ---------------------------------------------------------------------------------------------------------------


class Load:
    """The client of the stream: sends facts and requests with many in flight, and compares every decision as it comes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.different: list[dict[str, Any]] = []
        self.expected: dict[str, bytes] = {}
        self._first: dict[str, bytes] = {}
        self._in_flight: list[asyncio.Future[Any]] = []
        self._producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all", linger_ms=20, max_batch_size=1 << 18)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka, auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        topics = [self.settings.topic(name) for name in (APPROVED, BLOCKED, REJECTED)]
        self._consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(self.settings.partitions)])
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._consumer.stop()
        await self._producer.stop()

    async def send(self, topic: str, key: str, value: bytes) -> None:
        """Hand over one record; at most 20,000 are on their way."""
        self._in_flight.append(await self._producer.send(self.settings.topic(topic), value, key.encode()))
        if len(self._in_flight) >= 20_000:
            await self.acknowledged()

    async def acknowledged(self) -> None:
        """Wait until the broker has acknowledged all that was sent."""
        await asyncio.gather(*self._in_flight)
        self._in_flight.clear()

    async def read(self) -> int:
        """Compare what has come. Returns how many records those were."""
        records = [one for batch in (await self._consumer.getmany(timeout_ms=200, max_records=2000)).values() for one in batch]
        for record in records:
            if record.topic == self.settings.topic(REJECTED):
                self.rejected[msgspec.json.decode(record.value)["error"]["code"]] += 1
            else:
                self._compare(record)
        return len(records)

    def _compare(self, record: Any) -> None:
        decision = msgspec.json.decode(record.value)
        request_id = decision["request_id"]
        self.answered[request_id] += 1
        exact = hashlib.blake2b(record.value, digest_size=16).digest()
        assert record.key == decision["number"].encode()
        assert record.topic == self.settings.topic(APPROVED if decision["decision"] == "approved" else BLOCKED)
        if self._first.setdefault(request_id, exact) != exact:
            self.different.append({"repeat of": request_id, "got": decision})
        if self.answered[request_id] == 1:
            self.decisions[decision["decision"]] += 1
            self.codes.update(codes_of(decision))
            if digest(decision) != self.expected[request_id]:
                self.different.append({"got": decision, "want": wanted(request_id)})


def wanted(request_id: str) -> dict[str, Any]:
    """The decision that the offline code gives for a request, made again from its position."""
    resident = town_reference()[0].resident(int(request_id.partition("-")[0]))
    return next(msgspec.structs.asdict(one) for one in expected_decisions(resident) if one.request_id == request_id)


async def load_facts(load: Load, residents: int, say: Say) -> list[tuple[str, str, bytes]]:
    """Send all references and facts, and note what must be decided. Returns the requests: id, number and record."""
    town, _ = town_reference()
    for topic, value in town.references:
        await load.send(topic, value[REFERENCE_KEYS[topic]], encode(value))
    requests, releases, sent = [], [], Counter[str]()
    for position in range(residents):
        resident = town.resident(position)
        for topic, value in resident.facts:
            sent[topic] += 1
            await load.send(topic, resident.number, encode(value))
        for topic, raw in resident.broken:
            sent["broken"] += 1
            await load.send(topic, resident.number, raw)
        releases += resident.releases
        for request, decision in zip(resident.requests, expected_decisions(resident), strict=True):
            load.expected[decision.request_id] = digest(msgspec.structs.asdict(decision))
            requests.append((decision.request_id, resident.number, encode(request)))
        if position % 25 == 0:
            await asyncio.sleep(0)  # the worker shares this loop and has heartbeats to send
        if position % 20_000 == 19_999:
            say(f"facts of {position + 1:,} numbers sent")
    await load.acknowledged()
    await asyncio.sleep(0.05)  # a release must be younger than what it releases, by the log's clock
    for release in releases:
        sent["quarantine-releases"] += 1
        await load.send("quarantine-releases", release["number"], encode(release))
    await load.acknowledged()
    say(f"facts sent: {dict(sent)}")
    return requests


async def all_applied(worker: Worker) -> None:
    """Wait until the worker has applied all that was acknowledged, for as long as it gets on."""
    guard, before, since = worker.guard, -1, time.monotonic()
    partitions = guard.ownership.all
    ends = await guard.barrier.ends([partition.number for partition in partitions])
    while not all(guard.barrier.is_reached(partition, ends) for partition in partitions):
        applied = sum(partition.applied(topic) for partition in partitions for topic in FACT_MODELS)
        if applied != before:
            before, since = applied, time.monotonic()
        assert time.monotonic() - since < STALLED_S, "no fact was applied for a minute"
        await asyncio.sleep(0.2)


def reordered(raw: bytes) -> bytes:
    """The same request with its fields in another order."""
    return encode(dict(reversed(msgspec.json.decode(raw).items())))


async def ask(load: Load, requests: list[tuple[str, str, bytes]]) -> None:
    """Send the requests, mixed up, one in twenty a repeat; every other repeat spells the same content in another order."""
    for position, ((request_id, number, raw), repeated) in enumerate(in_order(iter(requests), SEED, REQUESTS)):
        load.asked[request_id] += 1
        await load.send(REQUEST_TOPIC, number, reordered(raw) if repeated and position % 40 == 39 else raw)
        if position % 200 == 0:
            await asyncio.sleep(0)
    await load.acknowledged()


async def read_all(load: Load, say: Say) -> None:
    """Read until every request has its answer, for as long as answers come."""
    since, reported = time.monotonic(), 0
    while load.answered.total() < REQUESTS:
        if await load.read():
            since = time.monotonic()
        assert time.monotonic() - since < STALLED_S, f"no decision for a minute, {load.answered.total():,} have come"
        if load.answered.total() - reported >= 25_000:
            reported = load.answered.total()
            say(f"{reported:,} decisions compared, {len(load.different)} differ")
    while await load.read():
        pass  # nothing may come twice


async def audit(settings: Settings) -> dict[str, Any]:
    """What ``ringfence audit`` says of the guard's topics, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGFENCE_")} | {
        "PYTHONPATH": str(ROOT),
        "RINGFENCE_KAFKA": settings.kafka,
        "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
        "RINGFENCE_PARTITIONS": str(settings.partitions),
        "RINGFENCE_EMBEDDED": "true",
        "RINGFENCE_CLOCK_OFFSET_S": str(SetClock().instant / SECOND - time.time()),
    }
    command = [sys.executable, "-m", "ops.cli", "audit", "--json"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    return cast("dict[str, Any]", msgspec.json.decode(answer))


@pytest.mark.broker
@pytest.mark.slow
async def test_the_stream_and_the_auditor_decide_as_the_offline_door(kafka, redis_url, prefix, redis_prefix, say):
    """One decision for each request, the same as offline; a repeat gets the bytes of the first; every code of today occurs."""
    settings = guard_settings(kafka, redis_url, prefix, request_memory_s=3600)
    residents = max(REQUESTS // 2, 10)
    await ensure_topics(settings)
    began = time.monotonic()
    async with running_worker(settings, SetClock()) as worker, Load(settings) as load:
        requests = await load_facts(load, residents, say)
        await all_applied(worker)
        loaded = time.monotonic()
        say(f"facts applied, {loaded - began:.0f} s")
        await asyncio.gather(ask(load, requests), read_all(load, say))
        done = time.monotonic()
    audited = await audit(settings)
    say(f"audited, {time.monotonic() - done:.0f} s: {audited['counts']}")
    title = f"{REQUESTS:,} requests about {residents:,} numbers: {dict(load.decisions)}, facts {loaded - began:.0f} s"
    say(table(f"{title}, requests {done - loaded:.0f} s", load.codes))
    assert load.different[:3] == []
    assert load.answered == load.asked
    assert load.decisions.total() == len(load.asked)
    assert REQUESTS - len(load.asked) == REQUESTS // 20
    broken = sum(len(town_reference()[0].resident(position).broken) for position in range(7, residents, 500))
    assert load.rejected.total() == broken
    assert {kind: count for kind, count in audited["violations"].items() if count} == {}
    assert audited["counts"]["re-decided"] == load.decisions.total()
    if REQUESTS >= 50_000:
        assert EVERY_CODE - OF_THE_PAST - set(load.codes) == set()
        assert 0.30 <= load.decisions["approved"] / load.decisions.total() <= 0.45
        assert load.codes["S_QUARANTINED"] > 0
