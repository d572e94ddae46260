"""Nothing is skipped (G7): what a rule, the broker or Redis refuses is blocked, or waits and is told of, and the others go on."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis as redis_client
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IllegalStateError
from faust.types import TP
from structlog.testing import capture_logs

import agents.turn
from rules.errors import DeliveryFailed
from streams.embedded import EmbeddedRedis
from streams.publisher import Output
from streams.topics import APPROVED, REJECTED, ensure_topics
from tests.harness import Client, Running, encode
from tests.scene import ask, consent, home, numbers, objection, party, request, running_scene
from tests.servers import wait_for

pytestmark = pytest.mark.broker

#: Short, because every attempt that fails must end before the next.
PUBLISH_TIMEOUT_S = 2.0


@pytest.fixture
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """A guard of this test alone, because its topics are taken away."""
    async with running_scene(kafka, redis_url, publish_timeout_s=PUBLISH_TIMEOUT_S) as guard:
        yield guard


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """The operator of the broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    yield admin
    await admin.close()


async def set_largest(admin: AIOKafkaAdminClient, topic: str, size: int) -> None:
    """Set a topic's max.message.bytes; the broker goes by it within a moment."""
    response = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])
    assert not any(code for one in response for code, *_ in one.resources)


def said(logs: list[Any], event: str, **fields: Any) -> list[Any]:
    """The log lines of an event, with these fields among others."""
    return [line for line in logs if line["event"] == event and fields.items() <= line.items()]


async def approved(guard: Running, of: str) -> bool:
    return (await ask(guard.client, of))["decision"] == "approved"


# --- rules ------------------------------------------------------------------------------------------------------------------------


async def test_a_rule_that_raises_blocks_its_request_and_no_other(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch, the requests around it are decided as ever.

    Guards the ``except Exception`` of ``_Decided._decide`` in agents/turn.py.
    """
    before, broken, after = numbers(3, partition=0)
    decide = agents.turn.decide

    def decide_or_raise(asked: Any, *arguments: Any) -> Any:
        if asked.number == broken:
            raise ZeroDivisionError("a rule with a fault")
        return decide(asked, *arguments)

    monkeypatch.setattr(agents.turn, "decide", decide_or_raise)
    await guard.client.put_all(consent(of) for of in (before, broken, after))
    asked = {of: request(of) for of in (before, broken, after)}
    with capture_logs() as logs:
        await guard.client.put_all(("call-requests", one) for one in asked.values())
        decisions = {of: await guard.client.decision(one["request_id"]) for of, one in asked.items()}
    assert decisions[broken]["reasons"] == ["S_STATE_UNAVAILABLE"]
    assert [decisions[of]["decision"] for of in (before, after)] == ["approved", "approved"]
    (line,) = said(logs, "a request could not be decided")
    assert broken not in str(line)


# --- a rebalance between fetch and hand-out -----------------------------------------------------------------------------------------


async def test_a_request_that_was_fetched_while_partitions_moved_is_read_again(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is committed for its partition yet, so that there is no offset to seek back to. It was once lost.

    Guards the seek to 0 in ``ConsumerThread._seek_to_committed``.
    """
    (of,) = numbers(1)
    tp = TP(guard.client.settings.topic("call-requests"), home(of, guard.client.settings.partitions))
    consumer, positions = guard.worker.app.consumer, list[int | None]()
    seek = consumer.perform_seek

    async def seek_back() -> None:
        positions.append(consumer._thread.position(tp))
        await seek()

    monkeypatch.setattr(consumer, "perform_seek", seek_back)
    asked = request(of)
    consumer.stop_flow()
    await guard.client.put("call-requests", asked)
    await wait_for(lambda: positions, within_s=10)
    consumer.resume_flow()
    assert (await guard.client.decision(asked["request_id"]))["decision"] == "blocked"
    assert positions == [1]


async def test_partitions_that_move_while_a_worker_seeks_do_not_end_it(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next assignment seeks for itself. A worker ended so when another one joined at the wrong moment.

    Guards the second look at the assignment in ``ConsumerThread._seek_to_committed``.
    """
    consumer = guard.worker.app.consumer
    fetching = consumer._thread._consumer
    gone, asked = TP(guard.client.settings.topic("objections"), 0), list[TP]()
    committed, assignment, seek = fetching.committed, fetching.assignment, fetching.seek
    assert gone in assignment()

    async def committed_while_one_goes(tp: TP) -> Any:
        asked.append(tp)
        return await committed(tp)

    def assigned() -> set[TP]:
        return set(assignment()) - ({gone} if gone in asked else set())

    def seek_what_is_assigned(tp: TP, offset: int) -> None:
        if tp not in assigned():
            raise IllegalStateError(f"No current assignment for partition {tp}")
        seek(tp, offset)

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "committed", committed_while_one_goes)
        patched.setattr(fetching, "assignment", assigned)
        patched.setattr(fetching, "seek", seek_what_is_assigned)
        positions = await consumer._thread.seek_to_committed()
    assert gone in asked
    assert positions.keys() == set(assignment()) - {gone}
    assert (await ask(guard.client, *numbers(1)))["decision"] == "blocked"


async def test_what_a_fetch_finds_that_nobody_waits_for_is_read_again(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions moved while it was under way, and it ended after everybody had begun anew. The request was once lost.

    Guards ``_awaited`` in ``ConsumerThread._fetch``.
    """
    app, asked, found = guard.worker.app, request(*numbers(1)), asyncio.Event()
    fetcher, loop = app.consumer._thread._consumer._fetcher, asyncio.get_running_loop()
    fetch = fetcher.fetched_records

    async def tell_of_records(*partitions: Any, **limits: Any) -> Any:
        records = await fetch(*partitions, **limits)
        if records:
            loop.call_soon_threadsafe(found.set)
        return records

    monkeypatch.setattr(fetcher, "fetched_records", tell_of_records)
    await ask(guard.client, *numbers(1, partition=1))  # from here on every fetch tells
    found.clear()
    await app._stop_fetcher()
    await guard.client.put("call-requests", asked)
    await asyncio.wait_for(found.wait(), 5)
    await app._fetcher.maybe_start()
    assert (await guard.client.decision(asked["request_id"]))["decision"] == "blocked"


async def test_requests_that_are_missing_before_the_first_turn_are_read_again(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a partition was fetched and never handed out; the second shows that.

    Guards ``next_request`` in ``Recovery.recover``.
    """
    (of,) = numbers(1)
    consumer, dropped = guard.worker.app.consumer, asyncio.Event()
    first, second = request(of), request(of)
    tp = TP(guard.client.settings.topic("call-requests"), home(of, guard.client.settings.partitions))

    async def seek_nowhere() -> None:
        if consumer._thread.position(tp) == 1:
            dropped.set()

    with monkeypatch.context() as patched:
        patched.setattr(consumer, "perform_seek", seek_nowhere)
        consumer.stop_flow()
        await guard.client.put("call-requests", first)
        await asyncio.wait_for(dropped.wait(), 10)
    consumer.resume_flow()
    await guard.client.put("call-requests", second)
    for one in (second, first):
        assert (await guard.client.decision(one["request_id"]))["decision"] == "blocked"


# --- the broker refuses an output ---------------------------------------------------------------------------------------------------


async def test_decisions_wait_while_their_topic_is_gone_and_are_all_published_when_it_is_back(
    guard: Running, admin: AIOKafkaAdminClient
) -> None:
    """None is lost, none is decided twice, and the guard says meanwhile what it waits for.

    Guards the retry in ``Turn.publish`` and ``CallRequestAgent._finish``: offsets are acknowledged only after the broker has all.
    """
    settings, client = guard.client.settings, guard.client
    waiting = numbers(8)
    await client.put_all(consent(of) for of in waiting)
    assert await approved(guard, waiting[0])
    asked = [request(of) for of in waiting for _ in range(5)]
    with capture_logs() as logs:
        await admin.delete_topics([settings.topic(APPROVED)])
        await client.put_all(("call-requests", one) for one in asked)
        await wait_for(lambda: said(logs, "decisions wait"), within_s=20)
    assert {name for name in guard.worker.guard.counts if name.startswith("not taken")} <= {
        f"not taken {APPROVED} {reason}"
        for reason in ("TimeoutError", "UnknownTopicOrPartitionError", "NotLeaderForPartitionError", "LeaderNotAvailableError")
    }
    await ensure_topics(settings)
    reader = Client(settings)
    await reader.start()
    try:
        for one in asked:
            assert (await reader.decision(one["request_id"], within_s=60))["decision"] == "approved"
        assert (await ask(reader, waiting[0]))["decision"] == "approved"
        records = {(record.key, record.value) for record in reader.records}
        assert len(records) == len({json.loads(value)["request_id"] for _, value in records})
    finally:
        await reader.stop()


async def test_of_a_batch_that_is_too_large_only_the_record_that_is_too_large_waits(guard: Running, admin: AIOKafkaAdminClient) -> None:
    """The others are with the broker, in their order, and those of another partition too.

    Guards the halving in ``Publisher._send_smaller``, and ``Publisher._deliver``, which takes each partition for itself.
    """
    topic = guard.client.settings.topic(REJECTED)
    await set_largest(admin, topic, 3000)
    small = [Output(topic, 0, str(position).encode(), b"{}") for position in range(9)]
    elsewhere, large = Output(topic, 1, b"elsewhere", b"{}"), Output(topic, 0, b"large", encode({"note": "x" * 4000}))
    with pytest.raises(DeliveryFailed) as failure:
        await guard.worker.guard.publisher.publish([*small[:5], large, elsewhere, *small[5:]])
    assert failure.value.undelivered == [large]
    assert failure.value.refusals == {f"not taken {REJECTED} MessageSizeTooLargeError": 1}
    reader = AIOKafkaConsumer(topic, bootstrap_servers=guard.client.settings.kafka, auto_offset_reset="earliest")
    await reader.start()
    try:
        keys = [(await reader.getone()).key for _ in range(10)]
    finally:
        await reader.stop()
    assert [key for key in keys if key != b"elsewhere"] == [output.key for output in small]


async def test_what_was_acknowledged_before_the_time_was_over_is_not_sent_again(
    guard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition with more to publish than a slow broker takes in the time must come nearer to the end with each attempt.

    Guards the deadline in ``Publisher._send``, which each acknowledgement has for itself.
    """
    publisher, topic = guard.worker.guard.publisher, guard.client.settings.topic(REJECTED)
    outputs = [Output(topic, 0, str(position).encode(), bytes(300_000)) for position in range(7)]
    send_batch, never = publisher._running().send_batch, asyncio.get_running_loop().create_future()
    sent = []

    async def slow_from_the_third_on(batch: Any, *to: Any, **at: Any) -> Any:
        sent.append(batch)
        return await send_batch(batch, *to, **at) if len(sent) < 3 else asyncio.shield(never)

    monkeypatch.setattr(publisher._running(), "send_batch", slow_from_the_third_on)
    with pytest.raises(DeliveryFailed) as failure:
        await publisher.publish(outputs)
    assert len(sent) == 4
    assert failure.value.undelivered == outputs[4:]


async def test_a_decision_that_its_topic_does_not_take_holds_up_its_partition_alone(guard: Running, admin: AIOKafkaAdminClient) -> None:
    """It waits, is told of with its size, and is published as it was decided once the limit is raised.

    Other partitions are decided as ever. Guards the timeout in ``CallRequestAgent._publish`` and the retry in ``_finish``.
    """
    (large, small), (other,) = numbers(2, partition=0), numbers(1, partition=1)
    topic = guard.client.settings.topic(APPROVED)
    await guard.client.put_all(consent(of) for of in (large, small, other))
    held = request(large, call_centre_id="x" * 4000)
    beside = request(small)
    await set_largest(admin, topic, 3000)
    with capture_logs() as logs:
        await guard.client.put("call-requests", beside)
        assert (await guard.client.decision(beside["request_id"]))["decision"] == "approved"
        await guard.client.put("call-requests", held)
        (line, *_) = await wait_for(lambda: said(logs, "a record is too large for its topic", topic=topic, partition=0))
        assert line["bytes"] > 4000
        behind = request(small)
        await guard.client.put("call-requests", behind)
        for _ in range(20):
            assert await approved(guard, other)
    assert guard.worker.guard.counts[f"not taken {APPROVED} MessageSizeTooLargeError"] >= 1
    assert not [one for one in guard.client.decisions if one["request_id"] == held["request_id"]]
    await set_largest(admin, topic, 1_048_588)
    for one in (held, behind):
        assert (await guard.client.decision(one["request_id"]))["decision"] == "approved"
    assert large not in str(logs)


async def test_a_broken_fact_that_cannot_be_reported_holds_up_its_partition_alone(guard: Running, admin: AIOKafkaAdminClient) -> None:
    """Neither is it skipped: its partition's facts go on once the report is with the broker.

    Guards ``_SortedOut.publish`` before the merge, and ``FactAgent._finish``, which lets the other partitions go on.
    """
    (of, neighbour), (other,) = numbers(2, partition=0), numbers(1, partition=1)
    topic = guard.client.settings.topic(REJECTED)
    raw = encode({"note": "x" * 4000})
    await set_largest(admin, topic, 3000)
    with capture_logs() as logs:
        sent = await guard.client.put_raw("consents", of.encode(), raw)
        await wait_for(lambda: said(logs, "a record is too large for its topic", topic=topic, partition=0))
        await guard.client.put_all([consent(neighbour), consent(other)])
        assert await approved(guard, other)
        asked = request(neighbour)
        await guard.client.put("call-requests", asked)
        await wait_for(lambda: len(said(logs, "facts wait", topic="consents", partition=0)) > 2)
    assert not [one for one in guard.client.decisions if one["request_id"] == asked["request_id"]]
    await set_largest(admin, topic, 1_048_588)
    (report,) = await wait_for(lambda: guard.client.rejected)
    assert (report["partition"], report["offset"], base64.b64decode(report["value"])) == (0, sent.offset, raw)
    assert (await guard.client.decision(asked["request_id"]))["decision"] == "approved"
    assert (await ask(guard.client, of))["reasons"][:1] == ["S_QUARANTINED"]


async def test_a_broken_party_that_cannot_be_reported_holds_up_nobody(guard: Running, admin: AIOKafkaAdminClient) -> None:
    """Every request waits for the reference topics, and must not wait for a report about them.

    Guards that ``ReferenceAgent`` reports apart.
    """
    (of,) = numbers(1)
    topic = guard.client.settings.topic(REJECTED)
    await set_largest(admin, topic, 3000)
    with capture_logs() as logs:
        await guard.client.put_raw("parties", b"A", encode({"note": "x" * 4000}))
        await wait_for(lambda: said(logs, "a rejected entry waits to be reported", topic="parties"))
        await guard.client.put_all([party("B"), consent(of)])
        assert await approved(guard, of)
    await set_largest(admin, topic, 1_048_588)
    (report,) = await wait_for(lambda: guard.client.rejected)
    assert (report["topic"], report["key"]) == ("parties", "A")


async def test_what_waits_for_a_partition_that_is_held_up_leaves_room_for_the_others(
    guard: Running, admin: AIOKafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When too much waits, it is dropped and read again: the others go on, and every request is decided in the end.

    Guards ``CallRequestAgent._pass_over`` (without it the guard stops reading) and the rewind in ``_go_on`` (without it they are lost).
    """
    monkeypatch.setattr("agents.call_requests._MOST_WAITING", 10)
    (large,), (other,) = numbers(1, partition=0), numbers(1, partition=1)
    topic = guard.client.settings.topic(APPROVED)
    await guard.client.put_all([consent(large), consent(other)])
    held = request(large, call_centre_id="x" * 4000)
    behind = [request(large) for _ in range(40)]
    await set_largest(admin, topic, 3000)
    with capture_logs() as logs:
        await guard.client.put("call-requests", held)
        await wait_for(lambda: said(logs, "decisions wait", partition=0))
        for one in behind:
            await guard.client.put("call-requests", one)
        for _ in range(5):
            assert await approved(guard, other)
    assert not [one for one in guard.client.decisions if one["number"] == large]
    await set_largest(admin, topic, 1_048_588)
    for one in [held, *behind]:
        assert (await guard.client.decision(one["request_id"]))["decision"] == "approved"


# --- Redis refuses to write ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """A Redis of this test alone, whose settings it may spoil."""
    with EmbeddedRedis() as server:
        yield server


def out_of_memory(client: Any) -> None:
    client.config_set("maxmemory", "1mb")


def enough_memory(client: Any) -> None:
    client.config_set("maxmemory", "0")


def read_only(client: Any) -> None:
    client.replicaof("127.0.0.1", "1")


def read_and_write(client: Any) -> None:
    client.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("spoil", "mend", "reply"),
    [(out_of_memory, enough_memory, "maxmemory"), (read_only, read_and_write, "read only replica")],
    ids=["out of memory", "read only"],
)
async def test_while_redis_refuses_to_write_nothing_is_decided_and_nothing_is_lost(
    kafka: str, own_redis: EmbeddedRedis, spoil: Any, mend: Any, reply: str
) -> None:
    """Requests and facts wait and the guard says why; once Redis writes again an objection of the meantime counts.

    Guards the ``except StateError`` of ``Turn._admit`` and ``FactAgent._apply``, and that a script which cannot write changes nothing.
    """
    allowed, objecting = numbers(2)
    async with running_scene(kafka, own_redis.url) as guard:
        await guard.client.put_all([consent(allowed), consent(objecting)])
        assert await approved(guard, allowed)
        assert await approved(guard, objecting)
        answered = len(guard.client.decisions)
        with redis_client.Redis.from_url(own_redis.url) as client, capture_logs() as logs:
            spoil(client)
            asked = [request(of) for of in (allowed, objecting)]
            await guard.client.put("call-requests", asked[0])
            await wait_for(lambda: [line for line in said(logs, "requests wait") if reply in line["reason"]])
            await guard.client.put(*objection(objecting))
            await wait_for(lambda: [line for line in said(logs, "facts wait", topic="objections") if reply in line["reason"]])
            await guard.client.put("call-requests", asked[1])
            await wait_for(lambda: len(said(logs, "requests wait")) > 5)
            assert len(guard.client.decisions) == answered
            mend(client)
        assert (await guard.client.decision(asked[0]["request_id"]))["decision"] == "approved"
        assert (await guard.client.decision(asked[1]["request_id"]))["reasons"] == ["E_OBJECTION"]
