"""Who owns a partition: workers that come, go, die and come back; one writer at a time; and a Redis that forgets."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis as redis_client
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import GroupCoordinatorNotAvailableError

from config.rulebook import load_rulebook
from config.settings import Settings
from rules.errors import StateError
from rules.events import FACT_MODELS, REQUEST_TOPIC, CalleeEvent
from rules.facts import NumberFacts
from rules.instants import SECOND, format_instant, parse_instant
from streams.kept import Admission, Entry, FactBatch, Journalled, Meta, Written
from streams.state import Store
from streams.topics import ensure_topics
from tests.harness import Client, SetClock, guard_settings, running_worker
from tests.scene import NOW, REFERENCE, ask, consent, fresh, home, numbers, objection, request
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parent.parent
PARTITIONS = 4
OFFSET_S = parse_instant(NOW) / SECOND - time.time()


# --- the store: what a former owner may no longer do ----------------------------------------------------------------------------


@pytest.fixture
async def store(redis_url: str, redis_prefix: str) -> AsyncIterator[Store]:
    """A store under a prefix of its own, which holds characters that a pattern would read otherwise."""
    store = Store(Settings(redis=redis_url, redis_prefix=f"{redis_prefix}[x]*", embedded=True))
    await store.check()
    yield store
    await store.close()


MINE, TAKEN = Meta(3, 7, {"objections": 5}), Meta(4, 7, {"objections": 5})
OF = "+31612345678"


def facts(legal_form: str) -> NumberFacts:
    known = NumberFacts()
    known.apply(CalleeEvent(event_id=legal_form, number=OF, at=NOW, legal_form=legal_form))
    return known


def admission(seen: Meta, record: bytes = b"{}", offset: int = 9, turns: int = 0) -> Admission:
    entry = Entry("q", b"f", approved=True, decided_at=1, valid_until=2, record=record, offset=offset)
    return Admission(0, seen, turns, [Journalled(offset, approved=True, number=OF, record=record)], {OF: [entry]}, 60)


def merged(seen: Meta, after: Meta, changed: dict[str, NumberFacts], **fields: Any) -> FactBatch:
    """A batch of facts that is ready to be written."""
    given = {"turns": 0, "field": b"objections:6", "compared": {}, "entries": {}, "recalls": [], "keep_s": 60, "stopped_ms": []}
    return FactBatch(partition=0, seen=seen, after=after, changed=changed, **{**given, **fields})


async def entries(store: Store) -> list[Entry]:
    return (await store.read_for_turn({0: [OF]}))[0].entries(OF)


@pytest.mark.broker
async def test_facts_of_a_former_owner_are_refused(store: Store) -> None:
    """It was paused with a batch in hand; its successor's epoch is in the meta, and neither state nor offsets change."""
    assert await store.take_over(0, None, MINE)
    assert await store.write_facts(merged(MINE, MINE, {OF: facts("foundation")})) is Written.DONE
    assert await store.take_over(0, MINE, TAKEN)
    late = merged(MINE, Meta(3, 7, {"objections": 6}), {OF: facts("sole_trader")})
    assert await store.write_facts(late) is Written.CHANGED
    found = await store.read_facts(0, [OF])
    assert (found.meta, found.facts(OF).callee().legal_form) == (TAKEN, "foundation")


@pytest.mark.broker
async def test_decisions_of_a_former_owner_are_refused(store: Store) -> None:
    """Neither journal nor entries hold anything of them; the new owner's are stored."""
    assert await store.take_over(0, None, MINE)
    assert await store.take_over(0, MINE, TAKEN)
    assert await store.admit([admission(MINE, b"old"), admission(TAKEN, b"new")]) == [0, 1]
    assert [entry.record for entry in await entries(store)] == [b"new"]
    assert [item.record for item in (await store.kept(0)).journal.values()] == [b"new"]


@pytest.mark.broker
@pytest.mark.parametrize("now", [Meta(3, 7, {"objections": 6}), Meta(3, 8, {"objections": 5}), None])
async def test_decisions_against_a_state_that_is_no_more_are_refused(store: Store, now: Meta | None) -> None:
    """An objection was applied since it was read, the state was rebuilt, or Redis forgot it."""
    if now is not None:
        assert await store.take_over(0, None, now)
    assert await store.admit([admission(MINE)]) == [0]
    assert (await store.kept(0)).journal == {}
    assert await entries(store) == []


@pytest.mark.broker
async def test_a_redis_that_knows_of_fewer_turns_is_told_by_every_write(store: Store) -> None:
    """It was rolled back to a backup with the same meta. Guards the turns in `ADMIT` and `WRITE_FACTS` (streams/scripts.py)."""
    assert await store.take_over(0, None, MINE)
    assert await store.admit([admission(MINE)]) == [1]
    assert await store.admit([admission(MINE, turns=2)]) == [-1]
    assert await store.write_facts(merged(MINE, TAKEN, {}, turns=2)) is Written.FORGOT
    assert await store.admit([admission(MINE, turns=1)]) == [2]
    assert await store.write_facts(merged(MINE, TAKEN, {}, turns=2)) is Written.DONE


@pytest.mark.broker
async def test_only_one_of_two_takes_a_partition_over(store: Store) -> None:
    """Both saw the same meta; the second finds another one."""
    assert await store.take_over(0, None, MINE)
    assert await store.take_over(0, MINE, TAKEN)
    assert not await store.take_over(0, MINE, Meta(5, 7, {}))
    assert not await store.take_over(0, None, Meta(5, 7, {}))
    assert await store.meta(0) == TAKEN


@pytest.mark.broker
async def test_the_journal_is_trimmed_only_below_what_is_committed(store: Store) -> None:
    """A batch whose last offset is 9 may go when 10 is committed, and not when 9 is."""
    assert await store.take_over(0, None, MINE)
    assert await store.admit([admission(MINE, offset=9), admission(MINE, offset=10)]) == [1, 2]
    await store.trim_journals({0: 9})
    assert sorted((await store.kept(0)).journal) == [9, 10]
    await store.trim_journals({0: 10})
    assert sorted((await store.kept(0)).journal) == [10]


@pytest.mark.broker
async def test_what_is_forgotten_is_one_partition_and_all_of_it(store: Store) -> None:
    """States and journal of partition 1 go; partition 11 keeps its own."""
    for partition in (1, 11):
        assert await store.take_over(partition, None, MINE)
        batch = merged(MINE, MINE, {OF: facts("foundation")})
        assert await store.write_facts(msgspec.structs.replace(batch, partition=partition)) is Written.DONE
        assert await store.admit([msgspec.structs.replace(admission(MINE), partition=partition)]) == [1]
    await store.forget(1)
    forms = [(await store.read_facts(partition, [OF])).facts(OF).callee() is not None for partition in (1, 11)]
    journals = [len((await store.kept(partition)).journal) for partition in (1, 11)]
    assert (forms, journals) == ([False, True], [0, 1])


async def test_a_redis_that_does_not_answer_is_a_state_error(unused_port: int) -> None:
    """Whatever is asked of it; the callers block or wait."""
    store = Store(Settings(redis=f"redis://127.0.0.1:{unused_port}/0", redis_timeout_s=0.2))
    for question in (store.meta(0), store.read_for_turn({0: [OF]}), store.admit([admission(MINE)]), store.kept(0), store.forget(0)):
        with pytest.raises(StateError):
            await question
    await store.close()


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def now_text() -> str:
    """The instant of the workers' clocks."""
    return format_instant(int((time.time() + OFFSET_S) * SECOND))


# --- workers as processes -------------------------------------------------------------------------------------------------------


class WorkerProcess:
    """``ringfence worker`` in a process of its own."""

    def __init__(self, settings: Settings, log: Path, **environment: str) -> None:
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RINGFENCE_KAFKA": settings.kafka,
            "RINGFENCE_REDIS": settings.redis.get_secret_value(),
            "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
            "RINGFENCE_GROUP": settings.group,
            "RINGFENCE_REDIS_PREFIX": settings.redis_prefix,
            "RINGFENCE_PARTITIONS": str(settings.partitions),
            "RINGFENCE_EMBEDDED": "true",
            "RINGFENCE_HEARTBEAT_S": "1",
            "RINGFENCE_BARRIER_TIMEOUT_S": "15",
            "RINGFENCE_CLOCK_OFFSET_S": str(OFFSET_S),
            **environment,
        }
        self._log = log
        self.said = b""

    async def start(self) -> WorkerProcess:
        """Start it; returns at once."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ops.cli",
                "worker",
                env=self._environment,
                cwd=self._log.parent,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        while line := await self.process.stdout.readline():
            self.said += line

    def is_ready(self) -> bool:
        """Whether it has said so."""
        assert self.process.returncode is None, self.last_words()
        return b"ready partitions=" in self.said

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-3000:]

    async def end(self, how: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        code = await asyncio.wait_for(self.process.wait(), 30)
        await self._reading
        return code


class Traffic:
    """Requests at a steady pace over some numbers, half of which object on the way; and what must be true of the answers."""

    def __init__(self, client: Client, every_s: float = 0.01) -> None:
        self.client = client
        self.sent: dict[str, dict[str, Any]] = {}
        self.after_objection: set[str] = set()
        self._every_s = every_s
        self._numbers = numbers(120)
        self._objected: set[str] = set()

    async def run(self) -> None:
        """Send until cancelled. Every request is acknowledged before the next one of its number."""
        for turn in range(1_000_000):
            of = self._numbers[turn % len(self._numbers)]
            if turn >= len(self._numbers) and turn % 7 == 0 and len(self._objected) < len(self._numbers) // 2:
                await self.client.put(*objection(of))
                self._objected.add(of)
            asked = request(of, dial_at=now_text())
            if of in self._objected:
                self.after_objection.add(asked["request_id"])
            self.sent[asked["request_id"]] = asked
            await self.client.put("call-requests", asked)
            await asyncio.sleep(self._every_s)

    def answered(self) -> set[str]:
        return {decision["request_id"] for decision in self.client.decisions}

    def audit(self) -> None:
        """Every request has a decision, no request has two that differ, and nothing is approved against an objection.

        What was approved shortly before an objection is recalled.
        """
        records, recalled = defaultdict(set), set()
        for record, decision in zip(self.client.records, self.client.decisions, strict=True):
            if decision["kind"] == "recall":
                recalled.add(decision["request_id"])
            else:
                records[decision["request_id"]].add(record.value)
        assert [asked for asked in self.sent if asked not in records] == []
        assert {asked: found for asked, found in records.items() if len(found) > 1} == {}
        approved = {one["request_id"] for one in self.client.decisions if one["decision"] == "approved"}
        assert len(approved) > 0
        assert approved & self.after_objection == set()
        # The approvals of a minute are valid, and this traffic is over sooner: all of a number that objected are taken back.
        assert {asked for asked in approved if self.sent[asked]["number"] in self._objected} == recalled


class Fleet:
    """Workers on one set of topics, a client and its traffic."""

    def __init__(self, settings: Settings, client: Client, folder: Path) -> None:
        self.settings, self.client, self._folder = settings, client, folder
        self.workers: list[WorkerProcess] = []

    async def start(self, **environment: str) -> WorkerProcess:
        """Start one more worker, with some variables of its own; returns at once."""
        worker = WorkerProcess(self.settings, self._folder / f"worker-{len(self.workers)}.log", **environment)
        self.workers.append(await worker.start())
        return worker

    async def members(self) -> list[dict[str, set[int]]]:
        """Of each member of the group, its partitions of each topic (name without prefix)."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka)
        await admin.start()
        try:
            (response,) = await admin.describe_consumer_groups([self.settings.group])
            (group,) = response.groups
            if group[2] != "Stable":
                return []
            found = []
            for member in group[5]:
                assignment = ConsumerProtocol.ASSIGNMENT.decode(member[4])
                found.append(
                    {topic.removeprefix(self.settings.topic_prefix): set(owned) for topic, owned in assignment.assignment if owned}
                )
            return found
        except GroupCoordinatorNotAvailableError:  # the broker has just started, and nobody can have joined
            return []
        finally:
            await admin.close()

    async def shared_by(self, count: int) -> list[dict[str, set[int]]]:
        """The members once there are so many and none has more than its share, rounded up; Faust may leave one without any."""

        async def complete() -> list[dict[str, set[int]]] | None:
            members = await self.members()
            most = max((len(owned[REQUEST_TOPIC]) for owned in members if owned), default=0)
            return members if len(members) == count and 0 < most <= math.ceil(PARTITIONS / count) else None

        return await wait_for(complete, within_s=45, every_s=0.3)

    async def goes_on(self, traffic: Traffic, more: int = 100) -> None:
        """Wait until requests that are sent from now on have been answered.

        The bound is above the longest recovery from a pause that a storm saw, 118 s (docs/chaos.md).
        """
        from_now = len(traffic.sent) + more
        await wait_for(lambda: len(traffic.sent) >= from_now and len(traffic.answered()) >= from_now - 20, within_s=150)


@pytest.fixture
async def fleet(kafka: str, redis_url: str, redis_prefix: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Topics with the advertiser on file, and no worker yet."""
    settings = guard_settings(kafka, redis_url, redis_prefix, partitions=PARTITIONS)
    await ensure_topics(settings)
    client = Client(settings)
    await client.start()
    await client.put_all(REFERENCE)
    fleet = Fleet(settings, client, tmp_path)
    yield fleet
    for worker in fleet.workers:
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGCONT)
        await worker.end(signal.SIGKILL)
        print(worker.last_words())  # shown if the test failed
    await client.stop()


@contextlib.asynccontextmanager
async def traffic_on(client: Client) -> AsyncIterator[Traffic]:
    """Traffic while the block runs; afterwards everything is answered and audited."""
    traffic = Traffic(client)
    await client.put_all(consent(of) for of in traffic._numbers)
    sending = asyncio.create_task(traffic.run())
    try:
        yield traffic
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
    await wait_for(lambda: traffic.answered() >= traffic.sent.keys(), within_s=60)
    traffic.audit()


@pytest.mark.broker
@pytest.mark.slow
async def test_a_worker_owns_the_same_partitions_of_every_topic(fleet: Fleet) -> None:
    """Everything about a number happens in one worker, while workers join one after the other, up to one that has nothing, and go."""

    async def is_shared_out(count: int) -> None:
        members = [owned for owned in await fleet.shared_by(count) if owned]
        for owned in members:
            assert owned.keys() == {REQUEST_TOPIC, *FACT_MODELS}
            assert len({frozenset(partitions) for partitions in owned.values()}) == 1
        assert sorted(one for owned in members for one in owned[REQUEST_TOPIC]) == list(range(PARTITIONS))

    for count in range(1, PARTITIONS + 2):
        worker = await fleet.start()
        await is_shared_out(count)
        await wait_for(worker.is_ready, within_s=30)
    for count in range(PARTITIONS, 0, -1):
        assert await fleet.workers[PARTITIONS - count].end(signal.SIGTERM) == 0
        await is_shared_out(count)
    (of,) = numbers(1)
    assert (await ask(fleet.client, of, dial_at=now_text()))["decision"] == "blocked"


@pytest.mark.broker
@pytest.mark.slow
async def test_workers_come_and_go_while_requests_flow(fleet: Fleet) -> None:
    """A second joins, the first leaves: every request is decided, and none twice in different ways."""
    first = await fleet.start()
    await wait_for(first.is_ready, within_s=30)
    async with traffic_on(fleet.client) as traffic:
        await fleet.goes_on(traffic)
        second = await fleet.start()
        await fleet.shared_by(2)
        await wait_for(second.is_ready, within_s=30)
        await fleet.goes_on(traffic)
        assert await first.end(signal.SIGTERM) == 0
        await fleet.shared_by(1)
        await fleet.goes_on(traffic)
    assert await second.end(signal.SIGTERM) == 0


@pytest.mark.broker
@pytest.mark.slow
async def test_two_rulebooks_side_by_side_keep_one_decision_a_request(fleet: Fleet) -> None:
    """A rolling upgrade: each decision names the rulebook of its worker, and a repeat gets the first one, whoever answers it."""
    old = await fleet.start(RINGFENCE_RULEBOOK_OVERRIDES=str(ROOT / "docs" / "examples" / "my-values.toml"))
    new = await fleet.start()
    await fleet.shared_by(2)
    await wait_for(lambda: old.is_ready() and new.is_ready(), within_s=30)
    asked = {partition: request(*numbers(1, partition), dial_at=now_text()) for partition in range(PARTITIONS)}
    await fleet.client.put_all([consent(one["number"]) for one in asked.values()])
    await fleet.client.put_all([("call-requests", one) for one in asked.values()])
    books = {partition: (await fleet.client.decision(one["request_id"]))["rulebook"] for partition, one in asked.items()}
    theirs, ours = (load_rulebook(overrides=path).version for path in (ROOT / "docs" / "examples" / "my-values.toml", None))
    assert sorted(books.values()) == sorted([theirs, theirs, ours, ours])
    first = {record.value for record in fleet.client.records}
    assert await old.end(signal.SIGTERM) == 0
    await fleet.shared_by(1)
    await fleet.client.put_all([("call-requests", one) for one in asked.values()])
    for one in asked.values():
        await fleet.client.decisions_of(one["request_id"], 2)
    assert {record.value for record in fleet.client.records} == first
    (of,) = numbers(1, next(partition for partition, book in books.items() if book == theirs))
    assert (await ask(fleet.client, of, dial_at=now_text()))["rulebook"] == ours


@pytest.mark.broker
@pytest.mark.slow
async def test_workers_whose_clocks_are_a_second_apart_keep_one_decision_a_request(fleet: Fleet) -> None:
    """A partition moves to the one that is ahead, and back to one that is behind."""
    ahead = {"RINGFENCE_CLOCK_OFFSET_S": str(OFFSET_S + 1)}
    first = await fleet.start()
    await wait_for(first.is_ready, within_s=30)
    async with traffic_on(fleet.client) as traffic:
        await fleet.goes_on(traffic)
        second = await fleet.start(**ahead)
        await fleet.shared_by(2)
        await fleet.goes_on(traffic)
        await fleet.client.put_all([("call-requests", one) for one in list(traffic.sent.values())[:50]])
        assert await first.end(signal.SIGTERM) == 0
        await fleet.shared_by(1)
        await fleet.goes_on(traffic)
        await fleet.client.put_all([("call-requests", one) for one in list(traffic.sent.values())[50:100]])
        await fleet.start()
        await fleet.shared_by(2)
        assert await second.end(signal.SIGTERM) == 0
        await fleet.shared_by(1)
        await fleet.goes_on(traffic)
        repeated = list(traffic.sent)[:100]
        await wait_for(lambda: all(len(fleet.client._of(one)) >= 2 for one in repeated), within_s=30)


@pytest.mark.broker
@pytest.mark.slow
async def test_a_worker_is_killed_in_the_middle_of_the_load(fleet: Fleet) -> None:
    """By kill -9; the other takes over once the session is out, and what was under way is neither lost nor decided otherwise."""
    first, second = await fleet.start(), await fleet.start()
    await fleet.shared_by(2)
    await wait_for(lambda: first.is_ready() and second.is_ready(), within_s=30)
    async with traffic_on(fleet.client) as traffic:
        await fleet.goes_on(traffic)
        await first.end(signal.SIGKILL)
        await fleet.shared_by(1)
        await fleet.goes_on(traffic)


@pytest.mark.broker
@pytest.mark.slow
async def test_the_only_worker_is_killed_and_started_again(fleet: Fleet) -> None:
    """Twice; requests wait meanwhile."""
    worker = await fleet.start()
    await wait_for(worker.is_ready, within_s=30)
    async with traffic_on(fleet.client) as traffic:
        for _ in range(2):
            await fleet.goes_on(traffic)
            await worker.end(signal.SIGKILL)
            worker = await fleet.start()
            await wait_for(worker.is_ready, within_s=60)
        await fleet.goes_on(traffic)


@pytest.mark.broker
@pytest.mark.slow
async def test_a_worker_that_was_stopped_past_its_session_changes_nothing_when_it_comes_back(fleet: Fleet) -> None:
    """SIGSTOP, the other takes over, SIGCONT: it either joins again or ends, and nothing is decided twice."""
    first, second = await fleet.start(), await fleet.start()
    await fleet.shared_by(2)
    await wait_for(lambda: first.is_ready() and second.is_ready(), within_s=30)
    async with traffic_on(fleet.client) as traffic:
        await fleet.goes_on(traffic)
        first.process.send_signal(signal.SIGSTOP)
        await fleet.shared_by(1)
        await fleet.goes_on(traffic)
        first.process.send_signal(signal.SIGCONT)
        await wait_for(lambda: back_or_gone(fleet, first), within_s=60, every_s=0.5)
        await fleet.goes_on(traffic)


async def back_or_gone(fleet: Fleet, worker: WorkerProcess) -> bool:
    return worker.process.returncode is not None or len(await fleet.members()) == len(fleet.workers)


# --- Redis forgets, and what is left of a dead worker ---------------------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.slow
async def test_nothing_is_approved_against_an_objection_after_redis_was_flushed(
    kafka: str, redis_db: str, prefix: str, tmp_path: Path
) -> None:
    """In mid-flight, twice: the state is read again from Kafka, and decisions go on with it."""
    settings = guard_settings(kafka, redis_db, prefix, partitions=PARTITIONS, barrier_timeout_s=15.0)
    await ensure_topics(settings)
    client, clock = Client(settings), ShiftedClock()
    await client.start()
    try:
        await client.put_all(REFERENCE)
        async with running_worker(settings, clock) as worker, traffic_on(client) as traffic:
            fleet = Fleet(settings, client, tmp_path)
            before = [partition.meta.incarnation for partition in worker.guard.ownership.all]
            for _ in range(2):
                await fleet.goes_on(traffic, 60)
                with redis_client.Redis.from_url(redis_db) as flushing:
                    flushing.flushdb()
                await fleet.goes_on(traffic, 60)
            after = [partition.meta.incarnation for partition in worker.guard.ownership.all]
            assert all(new > old for old, new in zip(before, after, strict=True))
            assert len(traffic.after_objection) > 0
    finally:
        await client.stop()


@pytest.mark.broker
@pytest.mark.slow
async def test_a_state_that_was_lost_while_nobody_ran_is_read_again_from_the_beginning(kafka: str, redis_db: str, prefix: str) -> None:
    """The group had committed everything and nothing new comes: the facts of before are found all the same, every time."""
    settings = guard_settings(kafka, redis_db, prefix, partitions=PARTITIONS, barrier_timeout_s=15.0)
    await ensure_topics(settings)
    client, clock = Client(settings), SetClock()
    await client.start()
    try:
        of, objecting = numbers(2)
        await client.put_all([*REFERENCE, consent(of), consent(objecting), objection(objecting)])
        for _ in range(3):
            async with running_worker(settings, clock):
                assert (await ask(client, of))["reasons"] == []
                assert (await ask(client, objecting))["reasons"] == ["E_OBJECTION"]
            with redis_client.Redis.from_url(redis_db) as flushing:
                flushing.flushdb()
    finally:
        await client.stop()


class ShiftedClock(SetClock):
    """The clock of the worker processes, in this one."""

    def now(self) -> int:
        """The system's time, moved to a working day."""
        return int((time.time() + OFFSET_S) * SECOND)


@pytest.mark.broker
async def test_what_a_worker_stored_and_could_not_publish_is_published_by_the_next_byte_for_byte(
    kafka: str, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died between store and publish; an hour and an objection later its successor repeats the decision of then, once."""
    settings = guard_settings(kafka, redis_url, redis_prefix, partitions=PARTITIONS, barrier_timeout_s=15.0)
    await ensure_topics(settings)
    client, clock, store = Client(settings), SetClock(), Store(settings)
    await client.start()
    try:
        (of,) = numbers(1)
        asked = request(of)
        await client.put_all([*REFERENCE, consent(of)])
        async with running_worker(settings, clock) as worker:
            publishing = asyncio.Event()

            async def never_publish(_outputs: Any) -> None:
                publishing.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(worker.guard.publisher, "publish", never_publish)
            sent = await client.put("call-requests", asked)
            await asyncio.wait_for(publishing.wait(), 20)
        (stored,) = (await store.kept(home(of, PARTITIONS))).journal.values()
        assert client.records == []
        await client.put_all([objection(of)])
        clock.set("2026-11-23T14:00:00Z")
        async with running_worker(settings, clock):
            await client.decision(asked["request_id"])
            later = await ask(client, of, dial_at="2026-11-23T14:00:00Z")
        assert later["reasons"] == ["E_OBJECTION"]
        (record,) = [one for one in client.records if one.offset == 0 and one.key == of.encode() and b'"approved"' in one.value]
        assert (stored.offset, stored.approved, stored.number, stored.record) == (sent.offset, True, of, record.value)
        assert dict(record.headers) == {"input-offset": str(sent.offset).encode(), "request-digest": stored.fingerprint}
        assert len(client.records) == 2
    finally:
        await store.close()
        await client.stop()


@pytest.mark.broker
async def test_a_journal_found_in_redis_answers_requests_without_deciding_them_again(
    kafka: str, redis_url: str, redis_prefix: str
) -> None:
    """Whatever the record says, its bytes are published; the request behind it is decided."""
    settings = guard_settings(kafka, redis_url, redis_prefix, partitions=PARTITIONS, barrier_timeout_s=15.0)
    await ensure_topics(settings)
    client, store = Client(settings), Store(settings)
    await client.start()
    try:
        (of,) = numbers(1)
        partition = home(of, PARTITIONS)
        first, second = request(of), request(of)
        await client.put_all([*REFERENCE, consent(of), ("call-requests", first), ("call-requests", second)])
        record = msgspec.json.encode({"request_id": first["request_id"], "decision": "approved", "note": fresh("of a former worker")})
        meta = Meta(1, 1, {})
        assert await store.take_over(partition, None, meta)
        entry = Entry(first["request_id"], b"another", approved=True, decided_at=parse_instant(NOW), valid_until=0, record=record)
        item = Journalled(0, approved=True, number=of, record=record)
        assert await store.admit([Admission(partition, meta, 0, [item], {of: [entry]}, 300)]) == [1]
        async with running_worker(settings, SetClock()):
            assert (await client.decision(second["request_id"]))["basis"] == "OK_CONSENT"
            assert [one.value for one in client.records if first["request_id"].encode() + b'"' in one.value] == [record]
            await wait_for(lambda: is_trimmed(store, partition), within_s=20)
    finally:
        await store.close()
        await client.stop()


async def is_trimmed(store: Store, partition: int) -> bool:
    return (await store.kept(partition)).journal == {}
