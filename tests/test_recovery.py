"""What a guard does when Redis forgot: everything that matters comes back from Kafka before anything is approved (G2, G3, G5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import redis as redis_client
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from rules.events import FACT_MODELS
from streams.checkpoints import Checkpoints
from streams.kept import Journalled, Meta
from streams.log_reader import LogReader
from streams.partition import Partition
from streams.state import Store
from streams.topics import APPROVED, STATES
from tests.harness import Running, SetClock, encode, running_worker
from tests.scene import ask, consent, fresh, home, numbers, objection, request, running_scene
from tests.servers import wait_for

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """A guard of one partition, which every test may make forget; checkpoints are written when a test says so."""
    async with running_scene(kafka, redis_url, partitions=1, checkpoint_s=3600) as running:
        yield running


@pytest.fixture
async def mortal(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """One that a test may stop, or give facts that no other may meet."""
    async with running_scene(kafka, redis_url, partitions=1, checkpoint_s=3600) as running:
        yield running


def keys(guard: Running, kind: str = "") -> list[bytes]:
    """The guard's keys in Redis."""
    with redis_client.Redis.from_url(guard.client.settings.redis.get_secret_value()) as client:
        return list(client.scan_iter(match=f"{guard.client.settings.redis_prefix}:*:{kind}*", count=1000))


def snapshot(guard: Running) -> dict[bytes, tuple[bytes, int]]:
    """All of the guard's keys, as a backup of Redis would hold them."""
    with redis_client.Redis.from_url(guard.client.settings.redis.get_secret_value()) as client:
        return {key: (client.dump(key), max(client.pttl(key), 0)) for key in keys(guard)}


def restore(guard: Running, backup: dict[bytes, tuple[bytes, int]]) -> None:
    """Put a backup in the place of what is there; an empty one is a flush."""
    with redis_client.Redis.from_url(guard.client.settings.redis.get_secret_value()) as client:
        pipeline = client.pipeline(transaction=True)
        for key in keys(guard):
            pipeline.unlink(key)
        for key, (value, ttl) in backup.items():
            pipeline.restore(key, ttl, value)
        pipeline.execute()


async def approved(guard: Running, of: str) -> dict[str, Any]:
    """A request for a number that has a consent, approved and acknowledged."""
    asked = request(of)
    await guard.client.put("call-requests", asked)
    assert (await guard.client.decision(asked["request_id"]))["decision"] == "approved"
    return asked


async def settled(guard: Running) -> None:
    """Wait until the requests are committed and Redis knows up to where the outputs are in it."""
    store = guard.worker.guard.store
    partition = guard.worker.guard.ownership.get(0)

    async def noted() -> bool:
        kept = await store.kept(0)
        return not kept.journal and kept.outputs == partition.outputs

    await wait_for(noted, within_s=20)


def records(guard: Running, asked: dict[str, Any]) -> list[bytes]:
    return [record.value for record in guard.client.records if encode(asked["request_id"]) in record.value]


async def again(guard: Running, asked: dict[str, Any], count: int) -> list[bytes]:
    """Ask once more and wait until there are so many records; all of them."""
    await guard.client.put("call-requests", asked)
    await guard.client.decisions_of(asked["request_id"], count)
    return records(guard, asked)


async def test_a_repeated_request_gets_its_first_bytes_after_a_flush(guard: Running) -> None:
    """Decided anew it would name other offsets. Guards `_read_outputs` in streams/recovery.py."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = await approved(guard, of)
    await settled(guard)
    restore(guard, {})
    await guard.client.put_all([consent(numbers(1)[0])])
    first, second = await again(guard, asked, 2)
    assert first == second


async def test_a_flush_is_noticed_without_any_traffic(guard: Running) -> None:
    """So that nobody has to wait for the rebuild. Guards `watch` in streams/ownership.py."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    await approved(guard, of)
    await settled(guard)
    before = guard.worker.guard.ownership.get(0).meta.incarnation
    restore(guard, {})
    partition = guard.worker.guard.ownership.get(0)
    await wait_for(lambda: partition.meta is not None and partition.meta.incarnation > before, within_s=20)
    assert (await guard.worker.guard.store.meta(0)).incarnation == partition.meta.incarnation


async def test_a_request_with_other_content_is_a_conflict_after_a_flush_too(mortal: Running) -> None:
    """The digest in the record's header tells. Guards REQUEST_DIGEST in streams/outputs.py."""
    (of,) = numbers(1)
    await mortal.client.put_all([consent(of)])
    asked = await approved(mortal, of)
    await settled(mortal)
    restore(mortal, {})
    await mortal.client.put("call-requests", asked | {"person_ref": "another"})
    await wait_for(lambda: any(one["error"]["code"] == "conflict" for one in mortal.client.rejected), within_s=20)
    assert len(records(mortal, asked)) == 1


async def test_an_approval_that_redis_forgot_is_recalled(guard: Running) -> None:
    """The outputs show it as live; the objection comes after the flush."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = await approved(guard, of)
    await settled(guard)
    restore(guard, {})
    await guard.client.put(*objection(of))
    _, recall = await guard.client.decisions_of(asked["request_id"], 2)
    assert (recall["kind"], recall["reasons"]) == ("recall", ["E_OBJECTION"])
    assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]


async def test_a_recall_that_redis_forgot_is_the_answer_afterwards(guard: Running) -> None:
    """Not the approval, which stands in the outputs as well."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = await approved(guard, of)
    await settled(guard)  # Redis learns of the recall's place with a later commit of requests only
    await guard.client.put(*objection(of))
    await guard.client.decisions_of(asked["request_id"], 2)
    restore(guard, {})
    approval, recall, repeated = await again(guard, asked, 3)
    assert recall == repeated != approval


async def test_a_backup_without_the_latest_decisions_is_noticed(guard: Running) -> None:
    """No fact has come since, so the meta is the same; the count of turns is not. Guards the turns in `ADMIT` and `WRITE_FACTS`.

    First by the next turn: the repeat gets the first bytes. Then by the next fact: the approval is recalled.
    """
    of, other = numbers(2)
    await guard.client.put_all([consent(of), consent(other)])
    await ask(guard.client, of)
    backup = snapshot(guard)
    meta = await guard.worker.guard.store.meta(0)
    asked, objected = await approved(guard, of), await approved(guard, other)
    await settled(guard)
    restore(guard, backup)
    assert (await guard.worker.guard.store.meta(0)) == meta
    first, second = await again(guard, asked, 2)
    assert first == second
    await settled(guard)
    restore(guard, backup)
    await guard.client.put(*objection(other))
    assert (await guard.client.decisions_of(objected["request_id"], 2))[1]["kind"] == "recall"


async def test_a_backup_without_the_latest_objection_approves_nothing(guard: Running) -> None:
    """Its applied offsets are older; the facts after them are merged again first."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = await approved(guard, of)
    backup = snapshot(guard)
    await guard.client.put(*objection(of))
    await guard.client.decisions_of(asked["request_id"], 2)
    restore(guard, backup)
    assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]
    assert len(set(records(guard, asked))) == 2


async def test_a_worker_that_starts_on_an_older_backup_reads_what_it_lacks(kafka: str, redis_url: str) -> None:
    """Nobody remembers what Redis knew: the offset up to which the outputs are in it is as old as the backup."""
    async with running_scene(kafka, redis_url, partitions=1) as guard:
        (of,) = numbers(1)
        await guard.client.put_all([consent(of)])
        await ask(guard.client, of)
        await settled(guard)
        backup = snapshot(guard)
        asked = await approved(guard, of)
        await settled(guard)
        guard.worker.stop()
        await wait_for(lambda: guard.worker.guard.ownership.all == [], within_s=20)
        restore(guard, backup)
        async with running_worker(guard.client.settings, SetClock()):
            first, second = await again(guard, asked, 2)
            assert first == second
            await guard.client.put(*objection(of))
            assert (await guard.client.decisions_of(asked["request_id"], 3))[2]["kind"] == "recall"


async def test_states_come_from_the_checkpoint_and_facts_from_after_it(mortal: Running) -> None:
    """Guards `fill` in streams/checkpoints.py: without it all facts are read again, and with it alone the last one is missed."""
    before, after = numbers(2)
    await mortal.client.put_all([consent(before), consent(after)])
    assert (await ask(mortal.client, before))["basis"] == "OK_CONSENT"
    partition = mortal.worker.guard.ownership.get(0)
    assert await mortal.worker._checkpoints.write(partition) == 2
    assert await mortal.worker._checkpoints.write(partition) == 0
    await mortal.client.put(*objection(after))
    assert (await ask(mortal.client, after))["reasons"] == ["E_OBJECTION"]
    applied = mortal.worker.guard.counts["applied consents"]
    restore(mortal, {})
    assert (await ask(mortal.client, before))["basis"] == "OK_CONSENT"
    assert (await ask(mortal.client, after))["reasons"] == ["E_OBJECTION"]
    assert mortal.worker.guard.counts["applied consents"] == applied


async def test_a_number_that_changes_during_a_checkpoint_is_in_the_next_one(mortal: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a checkpoint that failed is made up for. Guards the numbers in hand (`:f`) in streams/scripts.py."""
    (of,) = numbers(1)
    checkpoints, partition = mortal.worker._checkpoints, mortal.worker.guard.ownership.get(0)
    await mortal.client.put_all([consent(of)])
    await ask(mortal.client, of)

    async def fails(*_: Any) -> None:
        await mortal.client.put(*objection(of))
        await ask(mortal.client, of)
        raise KafkaError

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_send", fails)
        with pytest.raises(KafkaError):
            await checkpoints.write(partition)
    await checkpoints._drop_producer(0)
    assert await checkpoints.write(partition) == 1
    assert await checkpoints.write(partition) == 1
    restore(mortal, {})
    assert (await ask(mortal.client, of))["reasons"] == ["E_OBJECTION"]


async def test_a_former_owner_cannot_put_an_older_state_over_a_newer_one(mortal: Running) -> None:
    """Its producer is fenced by the next owner's first checkpoint. Guards transactional_id in streams/checkpoints.py."""
    settings, store = mortal.client.settings, mortal.worker.guard.store
    (of,) = numbers(1)
    partition = mortal.worker.guard.ownership.get(0)
    reader = LogReader(settings, "read_committed")
    former = Checkpoints(settings, store, reader, list)
    old = await former._producer(0)
    await mortal.client.put_all([consent(of), objection(of)])
    await ask(mortal.client, of)
    assert await mortal.worker._checkpoints.write(partition) == 1
    with pytest.raises(KafkaError):
        async with old.transaction():
            await former._send(old, 0, [(of.encode(), b"\x01" + msgspec.msgpack.encode([]))])
    await former.stop()
    restore(mortal, {})
    assert (await ask(mortal.client, of))["reasons"] == ["E_OBJECTION"]


async def test_a_checkpoint_of_another_log_is_not_used(mortal: Running) -> None:
    """The fact topics were made anew: offsets that they do not have yet would hide what is in them."""
    settings = mortal.client.settings
    (of,) = numbers(1)
    await mortal.client.put_all([consent(of), objection(of)])
    await ask(mortal.client, of)
    checkpoint = b"\x01" + encode(dict.fromkeys(FACT_MODELS, 1000))
    checkpoints = mortal.worker._checkpoints
    producer = await checkpoints._producer(0)
    async with producer.transaction():
        await checkpoints._send(producer, 0, [(of.encode(), b"\x01" + msgspec.msgpack.encode([])), (b"checkpoint", checkpoint)])
    restore(mortal, {})
    assert (await ask(mortal.client, of))["reasons"] == ["E_OBJECTION"]
    end = (await mortal.worker._reader.ends([TopicPartition(settings.topic(STATES), 0)])).popitem()[1]
    assert end > 0


async def test_a_checkpoint_with_states_of_another_format_is_not_used(mortal: Running) -> None:
    """Those of numbers that have not changed since the format did could not be read: all facts are read again."""
    (of,) = numbers(1)
    await mortal.client.put_all([consent(of), objection(of)])
    await ask(mortal.client, of)
    checkpoints = mortal.worker._checkpoints
    producer = await checkpoints._producer(0)
    async with producer.transaction():
        await checkpoints._send(
            producer, 0, [(of.encode(), b"\x02foreign"), (b"checkpoint", b"\x01" + encode({"objections": 1, "consents": 1}))]
        )
    restore(mortal, {})
    assert (await ask(mortal.client, of))["reasons"] == ["E_OBJECTION"]


async def test_a_decision_that_surfaces_late_and_is_not_known_is_taken_back(guard: Running) -> None:
    """A former owner published it, and Redis was lost as well. Guards agents/latecomers.py."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = await approved(guard, of)
    (record,) = (one for one in guard.client.records if encode(asked["request_id"]) in one.value)
    late = fresh("q")
    value = record.value.replace(encode(asked["request_id"]), encode(late))
    await guard.client.put_raw(APPROVED, record.key, value, partition=0, headers=[("input-offset", b"0")])
    _, recall = await guard.client.decisions_of(late, 2)
    assert (recall["kind"], recall["reasons"]) == ("recall", ["S_STATE_STALE"])
    await guard.client.put("call-requests", asked | {"request_id": late})
    assert (await guard.client.decisions_of(late, 3))[2] == recall


async def test_a_copy_that_surfaces_late_changes_nothing(mortal: Running) -> None:
    """A publish that timed out and landed all the same: the entries know it."""
    (of,) = numbers(1)
    await mortal.client.put_all([consent(of)])
    asked = await approved(mortal, of)
    (record,) = (one for one in mortal.client.records if encode(asked["request_id"]) in one.value)
    await mortal.client.put_raw(APPROVED, record.key, record.value, partition=0, headers=list(record.headers))
    await mortal.client.decisions_of(asked["request_id"], 2)
    partition = mortal.worker.guard.ownership.get(0)
    await wait_for(lambda: partition.outputs[APPROVED] == 2 and not partition.unexplained, within_s=20)
    assert set(await again(mortal, asked, 3)) == {record.value}


async def test_what_a_former_turn_left_to_be_published_is_known_after_a_flush(guard: Running) -> None:
    """The worker holds it in memory and publishes it yet; Redis and the outputs know nothing of it.

    Guards `unpublished` in streams/recovery.py; a storm found it: a repeat was decided anew.
    """
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = await approved(guard, of)
    (record,) = records(guard, asked)
    held = fresh("q")
    value = record.replace(encode(asked["request_id"]), encode(held))
    partition = guard.worker.guard.ownership.get(0)
    partition.journal[1_000_000] = Journalled(1_000_000, approved=True, number=of, record=value)
    restore(guard, {})
    await guard.client.put_all([consent(numbers(1)[0])])  # decided anew it would name other offsets
    await guard.client.put("call-requests", asked | {"request_id": held})
    await guard.client.decision(held)
    assert records(guard, {"request_id": held}) == [value]
    await guard.client.put(*objection(of))
    assert (await guard.client.decisions_of(held, 2))[1]["kind"] == "recall"


async def test_what_was_under_way_is_awaited_before_the_outputs_are_read() -> None:
    """A partition that publishes is not quiet. Guards `quiet` in streams/recovery.py."""
    partition = Partition(0)
    with partition.publishing():
        waiting = asyncio.create_task(partition.quiet())
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 5)


async def test_a_rebuild_that_came_to_no_end_is_begun_again(mortal: Running) -> None:
    """Its worker died: the meta is there, with nothing applied, and must not pass for that of an empty guard."""
    of = numbers(1)[0]
    await mortal.client.put_all([consent(of), objection(of)])
    await ask(mortal.client, of)
    await mortal.worker._checkpoints.write(mortal.worker.guard.ownership.get(0))
    settings, store = mortal.client.settings, Store(mortal.client.settings)
    mortal.worker.stop()
    await wait_for(lambda: mortal.worker.guard.ownership.all == [], within_s=20)
    restore(mortal, {})
    assert await store.take_over(0, None, Meta(1, 1, {}))
    await store.close()
    async with running_worker(settings, SetClock()) as worker:
        assert (await ask(mortal.client, of))["reasons"] == ["E_OBJECTION"]
        assert worker.guard.counts["applied consents"] == 0
    assert home(of, 1) == 0
