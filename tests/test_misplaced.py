"""Records in a partition that is not their key's: they reach their own, and are applied or decided there."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from agents.facts import FORWARDED
from rules.events import MAX_RECORD_BYTES
from tests.harness import Running, encode
from tests.scene import ask, consent, home, numbers, objection, release, request, running_scene
from tests.servers import wait_for

pytestmark = pytest.mark.broker

PARTITIONS = 4


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """One guard for all tests of this file; each uses numbers and ids of its own."""
    async with running_scene(kafka, redis_url, partitions=PARTITIONS) as guard:
        yield guard


def elsewhere(of: str) -> int:
    return (home(of, PARTITIONS) + 1) % PARTITIONS


async def put_wrongly(guard: Running, topic: str, value: dict[str, Any], headers: Any = None) -> Any:
    return await guard.client.put_raw(topic, value["number"].encode(), encode(value), elsewhere(value["number"]), headers)


async def put_packed(guard: Running, kafka: str, topic: str, value: dict[str, Any], headers: Any = None) -> None:
    """Put a record in the wrong partition that only fits into the log compressed."""
    packing = AIOKafkaProducer(bootstrap_servers=kafka, compression_type="gzip", max_request_size=8 << 20)
    await packing.start()
    try:
        of, name = value["number"], guard.client.settings.topic(topic)
        await packing.send_and_wait(name, encode(value), of.encode(), partition=elsewhere(of), headers=headers)
    finally:
        await packing.stop()


async def reasons(guard: Running, of: str) -> list[str]:
    return (await ask(guard.client, of))["reasons"]


def blocked_as(guard: Running, of: str, code: str):
    async def is_so() -> bool:
        return code in await reasons(guard, of)

    return is_so


async def test_a_misplaced_fact_is_applied_where_its_number_lives_and_counted(guard: Running) -> None:
    """The objection was acknowledged in the wrong partition only; the number is blocked all the same, once it has been passed on."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    assert await reasons(guard, of) == []
    before = guard.worker.guard.counts["misplaced objections"]
    await put_wrongly(guard, *objection(of))
    await wait_for(blocked_as(guard, of, "E_OBJECTION"), within_s=20)
    assert guard.worker.guard.counts["misplaced objections"] == before + 1


async def test_a_misplaced_request_is_decided_once_and_at_home(guard: Running) -> None:
    """The decision lies in the partition of the number and names the place at home that it was decided from."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    before = guard.worker.guard.counts["misplaced call-requests"]
    asked = request(of)
    await put_wrongly(guard, "call-requests", asked, headers=[("trace", b"1")])
    decision = await guard.client.decision(asked["request_id"])
    assert decision["decision"] == "approved"
    assert guard.worker.guard.counts["misplaced call-requests"] == before + 1
    (record,) = [one for one in guard.client.records if one.key == of.encode()]
    assert record.partition == home(of, PARTITIONS)
    right = await guard.client.put("call-requests", asked)
    await guard.client.decisions_of(asked["request_id"], 2)
    first, second = [one for one in guard.client.records if one.key == of.encode()]
    assert first.value == second.value
    assert int(dict(first.headers)["input-offset"]) < int(dict(second.headers)["input-offset"]) == right.offset


async def test_what_a_crc32_client_sends_comes_out_like_everything_else(guard: Running) -> None:
    """Two hundred numbers by librdkafka's default partitioner: consents, objections for every third, and requests."""
    asked_for = numbers(200)
    objecting = set(asked_for[::3])

    async def put(topic: str, value: dict[str, Any]) -> None:
        key = value["number"].encode()
        await guard.client.put_raw(topic, key, encode(value), zlib.crc32(key) % PARTITIONS)

    def wrong(numbers_sent: list[str]) -> int:
        return sum(zlib.crc32(of.encode()) % PARTITIONS != home(of, PARTITIONS) for of in numbers_sent)

    counts = guard.worker.guard.counts
    applied = {topic: counts[f"applied {topic}"] for topic in ("consents", "objections")}
    misplaced = counts["misplaced call-requests"]
    for of in asked_for:
        await put(*consent(of))
        if of in objecting:
            await put(*objection(of))
    # Every record counts where it was found, and once more at home if that was elsewhere.
    await wait_for(lambda: counts["applied consents"] - applied["consents"] == 200 + wrong(asked_for), within_s=30)
    await wait_for(
        lambda: counts["applied objections"] - applied["objections"] == len(objecting) + wrong(sorted(objecting)), within_s=30
    )
    requests = {of: request(of) for of in asked_for}
    for asked in requests.values():
        await put("call-requests", asked)
    for of, asked in requests.items():
        decision = await guard.client.decision(asked["request_id"])
        assert decision["reasons"] == (["E_OBJECTION"] if of in objecting else [])
    assert counts["misplaced call-requests"] - misplaced == wrong(asked_for) > 100
    answers = [one for one in guard.client.records if one.key.decode() in requests]
    assert len(answers) == 200
    assert {one.partition - home(one.key.decode(), PARTITIONS) for one in answers} == {0}


async def test_a_misplaced_broken_objection_suspends_its_number_at_home(guard: Running) -> None:
    """And is reported once."""
    (of,) = numbers(1)
    await guard.client.put_raw("objections", of.encode(), b"{", elsewhere(of))
    await wait_for(blocked_as(guard, of, "S_QUARANTINED"), within_s=20)
    assert [one["error"]["code"] for one in guard.client.rejected if one["key"] == of] == ["json"]
    await guard.client.put_all([consent(of), release(of)])
    assert await reasons(guard, of) == []


@pytest.mark.parametrize("topic", ["objections", "call-requests"])
async def test_a_misplaced_record_too_large_to_read_is_not_passed_on_and_holds_nothing_up(
    guard: Running, kafka: str, topic: str
) -> None:
    """Compressed it fits into the log, unpacked it would never fit again; an objection suspends its number nevertheless."""
    of, neighbour = numbers(2, partition=2)
    _, value = objection(of)
    await put_packed(guard, kafka, topic, {**value, "note": "x" * (6 * MAX_RECORD_BYTES)})
    await wait_for(lambda: any(one["key"] == of for one in guard.client.rejected), within_s=20)
    (report,) = [one for one in guard.client.rejected if one["key"] == of]
    assert (report["error"]["code"], report["partition"], report["truncated"]) == ("too_large", elsewhere(of), True)
    if topic == "objections":
        await wait_for(blocked_as(guard, of, "S_QUARANTINED"), within_s=20)
    await put_wrongly(guard, *consent(neighbour))
    await wait_for(lambda: is_approved(guard, neighbour), within_s=20)


async def is_approved(guard: Running, of: str) -> bool:
    return await reasons(guard, of) == []


async def test_nobody_can_mark_an_objection_as_passed_on_already(guard: Running) -> None:
    """A mirror copies headers, ours too: a misplaced objection that carries ours still goes home."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    await put_wrongly(guard, *objection(of), headers=[(FORWARDED, b"1")])
    await wait_for(blocked_as(guard, of, "E_OBJECTION"), within_s=20)


async def test_headers_that_would_make_a_misplaced_record_too_large_stay_behind(guard: Running, kafka: str) -> None:
    """Three megabytes that came in compressed; the objection that carries them still goes home."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    await put_packed(guard, kafka, *objection(of), headers=[("note", b"x" * (3 << 20))])
    await wait_for(blocked_as(guard, of, "E_OBJECTION"), within_s=20)
