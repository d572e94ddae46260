"""Read your objection (G1): what Kafka acknowledged before a request was produced is known to its decision, always."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from faust.types import TP

from rules.events import FACT_MODELS, REFERENCE_MODELS
from tests.harness import Running, encode
from tests.scene import (
    Event,
    ask,
    campaign,
    consent,
    fresh,
    home,
    numbers,
    objection,
    outcome,
    party,
    relationship,
    request,
    running_scene,
    withdrawal,
)
from tests.servers import wait_for

pytestmark = pytest.mark.broker

PARTITIONS = 4
ROUNDS = 300


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """One guard for all tests of this file; each uses numbers and ids of its own.

    Facts and reference entries reach its state a little late, so that whoever does not wait for them is caught.
    """
    async with running_scene(kafka, redis_url, partitions=PARTITIONS) as guard:
        store, feed = guard.worker.guard.store, guard.worker.guard.feed
        store.write_facts = late(store.write_facts)
        feed._deliver = late(feed._deliver)
        await ask(guard.client, *numbers(1))  # a client's first request waits for metadata, and would be late itself
        yield guard


def late(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same work, begun a fifth of a second later."""

    async def begin_late(*arguments: Any) -> Any:
        await asyncio.sleep(0.2)
        return await work(*arguments)

    return begin_late


@pytest.fixture(scope="module")
async def impatient(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """A guard that waits half a second for facts."""
    async with running_scene(kafka, redis_url, partitions=PARTITIONS, barrier_timeout_s=0.5) as guard:
        yield guard


#: What a person can do to be left alone, and the code that every request has to meet from then on.
REFUSALS: dict[str, tuple[Callable[[str], Event], str]] = {
    "objection": (objection, "E_OBJECTION"),
    "withdrawal": (withdrawal, "E_CONSENT_WITHDRAWN"),
    "objected outcome": (lambda of: outcome(of, "objected"), "E_OBJECTION"),
    "used opt-out": (lambda of: relationship(of, optout_used=True), "E_OBJECTION"),
    "broken objection": (lambda of: ("objections", {"number": of}), "S_QUARANTINED"),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_an_acknowledged_refusal_blocks_every_request_produced_after_it(guard: Running, what: str) -> None:
    """Three hundred persons at once: each refusal is acknowledged, and the request follows at once. as_of shows that it was known."""
    refusal, code = REFUSALS[what]

    async def one_round(of: str) -> tuple[list[str], bool]:
        topic, value = refusal(of)
        acknowledged = await guard.client.put(topic, value)
        decision = await ask(guard.client, of)
        return decision["reasons"], decision["as_of"][topic] >= acknowledged.offset + 1

    asked_for = numbers(ROUNDS)
    await guard.client.put_all(consent(of) for of in asked_for)
    rounds = await asyncio.gather(*map(one_round, asked_for))
    assert [(code in reasons, covered) for reasons, covered in rounds] == [(True, True)] * ROUNDS


async def test_a_consent_is_known_to_the_requests_after_it_too(guard: Running) -> None:
    """The barrier knows no difference between facts that allow and facts that forbid."""

    async def one_round(of: str) -> str:
        await guard.client.put(*consent(of))
        return (await ask(guard.client, of))["decision"]

    assert await asyncio.gather(*map(one_round, numbers(ROUNDS))) == ["approved"] * ROUNDS


async def test_a_campaign_taken_off_file_stops_its_requests(guard: Running) -> None:
    """A tombstone acknowledged before the request was produced is known to it."""

    async def one_round(of: str) -> tuple[list[str], list[str], bool]:
        campaign_id = fresh("c")
        await guard.client.put(*campaign(campaign_id))
        before = await ask(guard.client, of, campaign_id=campaign_id)
        removed = await guard.client.put_raw("campaigns", campaign_id.encode(), None)
        after = await ask(guard.client, of, campaign_id=campaign_id)
        return before["reasons"], after["reasons"], after["as_of"]["campaigns"] >= removed.offset + 1

    asked_for = numbers(100)
    await guard.client.put_all(consent(of) for of in asked_for)
    assert await asyncio.gather(*map(one_round, asked_for)) == [([], ["E_FACTS_INCOMPLETE"], True)] * 100


async def test_a_party_that_takes_on_a_brand_takes_on_its_objections(guard: Running) -> None:
    """An objection to one party of a brand reaches the others from the moment at which they are acknowledged as such."""

    async def one_round(of: str) -> tuple[list[str], list[str]]:
        mine, other, brand = fresh("P"), fresh("P"), fresh("brand")
        asked = {"advertiser_id": mine, "cli": {"number": None, "withheld": True}}
        await guard.client.put(*party(other, brand=brand))
        await guard.client.put(*party(mine))
        await guard.client.put(*consent(of, party_ids=[mine]))
        await guard.client.put(*objection(of, advertiser_id=other))
        before = await ask(guard.client, of, **asked)
        await guard.client.put(*party(mine, brand=brand))
        after = await ask(guard.client, of, **asked)
        return before["reasons"], after["reasons"]

    expected = ["E_CLI_WITHHELD"], ["E_CLI_WITHHELD", "E_OBJECTION"]
    assert await asyncio.gather(*map(one_round, numbers(100))) == [expected] * 100


async def test_a_decision_says_what_was_applied_of_every_topic(guard: Running) -> None:
    """as_of names all fact and reference topics, also those that hold nothing yet."""
    (of,) = numbers(1)
    decision = await ask(guard.client, of)
    assert set(decision["as_of"]) == set(FACT_MODELS) | set(REFERENCE_MODELS)
    assert decision["as_of"]["parties"] >= 1


# --- transactions ---------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def transactional(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=fresh("transaction") + str(id(object())))
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: AIOKafkaProducer, guard: Running, event: Event) -> Any:
    topic, value = event
    return await producer.send_and_wait(guard.client.settings.topic(topic), encode(value), value["number"].encode())


async def test_facts_of_an_aborted_transaction_never_happened_and_hold_nothing_up(guard: Running, kafka: str) -> None:
    """The log grew by them and by a marker; requests after it are decided without waiting for what will never come."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    async with transactional(kafka) as producer:
        await producer.begin_transaction()
        sent = await send(producer, guard, objection(of))
        await producer.abort_transaction()
    decision = await ask(guard.client, of)
    assert decision["reasons"] == []
    assert decision["as_of"]["objections"] > sent.offset


async def test_facts_of_a_committed_transaction_count(guard: Running, kafka: str) -> None:
    """From its commit."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    async with transactional(kafka) as producer, producer.transaction():
        await send(producer, guard, objection(of))
    assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]


async def test_an_objection_behind_somebody_elses_open_transaction_is_never_overlooked(impatient: Running, kafka: str) -> None:
    """It is acknowledged and cannot be read yet: requests are blocked as stale until the transaction ends, and not approved."""
    of, other = numbers(2, partition=3)
    await impatient.client.put_all([consent(of)])
    assert (await ask(impatient.client, of))["reasons"] == []
    async with transactional(kafka) as producer:
        await producer.begin_transaction()
        try:
            await send(producer, impatient, objection(other))
            await impatient.client.put_all([objection(of)])
            assert (await ask(impatient.client, of))["reasons"] == ["S_STATE_STALE"]
        finally:
            await producer.abort_transaction()
    assert (await ask(impatient.client, of))["reasons"] == ["E_OBJECTION"]


# --- facts that cannot be applied -----------------------------------------------------------------------------------------------


async def test_facts_that_cannot_be_applied_in_time_block_their_partition_and_no_other(impatient: Running) -> None:
    """S_STATE_STALE after the bound, never an approval; once they are applied, decisions go on with them."""
    (of,), (other,) = numbers(1, partition=0), numbers(1, partition=1)
    await impatient.client.put_all([consent(of), consent(other)])
    assert (await ask(impatient.client, of))["reasons"] == []
    async with impatient.worker.guard.ownership.get(0).lock:  # the agents write under it
        await impatient.client.put_all([objection(of)])
        waiting = request(of)
        await impatient.client.put("call-requests", waiting)
        assert (await ask(impatient.client, other))["reasons"] == []
        assert (await impatient.client.decision(waiting["request_id"]))["reasons"] == ["S_STATE_STALE"]
    assert (await ask(impatient.client, of))["reasons"] == ["E_OBJECTION"]


async def test_reference_entries_that_cannot_be_applied_in_time_block_everything(
    impatient: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign may have been taken off file: nobody knows until its topic is read."""
    (of,) = numbers(1)
    await impatient.client.put_all([consent(of)])
    feed = impatient.worker.guard.feed
    held: list[tuple[str, int]] = []
    with monkeypatch.context() as patch:
        patch.setattr(feed, "mark_applied", lambda *applied: held.append(applied))
        await impatient.client.put(*campaign(fresh("c")))
        assert (await ask(impatient.client, of))["reasons"] == ["S_STATE_STALE"]
    for topic, next_offset in held:
        feed.mark_applied(topic, next_offset)
    assert (await ask(impatient.client, of))["reasons"] == []


@pytest.mark.parametrize("between", ["read_for_turn", "admit"])
async def test_an_objection_that_is_applied_while_its_number_is_being_decided_is_decided_with(
    guard: Running, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """After the state was read, or before the decision is stored: what was decided without it is decided again."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    assert (await ask(guard.client, of))["reasons"] == []
    store, partition = guard.worker.guard.store, guard.worker.guard.ownership.get(home(of, PARTITIONS))
    step, taken = getattr(store, between), []

    async def be_overtaken() -> None:
        taken.append(between)
        if len(taken) == 1:
            sent = await guard.client.put(*objection(of))
            await wait_for(lambda: partition.applied("objections") > sent.offset)

    async def overtaken(asked: Any) -> Any:
        if between == "admit":
            await be_overtaken()
            return await step(asked)
        snapshots = await step(asked)
        await be_overtaken()
        return snapshots

    monkeypatch.setattr(store, between, overtaken)
    assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]
    assert len(taken) >= 2


async def test_the_state_is_read_while_the_ends_are_asked_and_again_only_if_it_has_changed(
    guard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round trip less for a request that no fact overtakes; one that a fact overtakes is not held up by more than a second read."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    assert (await ask(guard.client, of))["reasons"] == []
    store, barrier = guard.worker.guard.store, guard.worker.guard.barrier
    read, ends, reads = store.read_for_turn, barrier.ends, list[object]()

    async def reading(asked: Any) -> Any:
        reads.append(asked)
        return await read(asked)

    async def asking(partitions: Any) -> Any:
        await wait_for(lambda: len(reads) > 0, within_s=10)
        return await ends(partitions)

    monkeypatch.setattr(store, "read_for_turn", reading)
    monkeypatch.setattr(barrier, "ends", asking)
    await ask(guard.client, of)
    assert len(reads) == 1
    await guard.client.put(*objection(of))
    assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]
    assert len(reads) == 3


async def test_facts_that_were_passed_over_are_read_again_and_the_partition_goes_on(impatient: Running) -> None:
    """A seek that lands in the wrong moment leaves a topic behind for good, unless somebody notices: the request that waited does."""
    (called,) = numbers(1)
    await impatient.client.put_all([consent(called)])
    consumer, topic = impatient.worker.app.consumer, impatient.client.settings.topic("objections")
    skipped = TP(topic, home(called, PARTITIONS))
    consumer.pause_partitions({skipped})
    written = await impatient.client.put(*objection(called))
    await consumer._thread.rewind(skipped, written.offset + 1)
    consumer.resume_partitions({skipped})
    first = await ask(impatient.client, called)
    assert first["reasons"] == ["S_STATE_STALE"]
    partition = impatient.worker.guard.ownership.get(skipped.partition)
    await wait_for(lambda: partition.applied("objections") > written.offset, within_s=10)
    second = await ask(impatient.client, called)
    assert "E_OBJECTION" in second["reasons"]
