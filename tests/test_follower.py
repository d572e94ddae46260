"""A follower reads what is written from now on, and of some topics all there is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from config.settings import Settings
from ops.follower import Follower
from ops.topic_log import Publish, publishing
from rules.errors import CannotStart
from streams.topics import APPROVED, BLOCKED, ensure_topics
from tests.servers import wait_for


@pytest.fixture
async def settings(kafka: str, prefix: str) -> Settings:
    settings = Settings(kafka=kafka, topic_prefix=prefix, partitions=2, replication=1)
    await ensure_topics(settings)
    return settings


@asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[None]:
    await follower.start()
    reading = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await follower.stop()


async def write(publish: Publish, settings: Settings, topic: str, value: bytes, partition: int = 0) -> None:
    await publish(settings.topic(topic), partition, b"k", value)


@pytest.mark.parametrize("in_lots", [False, True], ids=["promptly", "in-lots"])
async def test_it_reads_from_the_ends_and_what_is_wanted_whole_from_the_beginning(settings, in_lots):
    taken: list[tuple[str, bytes | None]] = []
    follower = Follower(
        settings, (BLOCKED, "parties"), lambda topic, record: taken.append((topic, record.value)), whole=["parties"], in_lots=in_lots
    )
    async with publishing(settings) as publish:
        await write(publish, settings, BLOCKED, b"before")
        await write(publish, settings, "parties", b"entry")
        async with running(follower):
            for partition in (0, 1):
                await write(publish, settings, BLOCKED, b"after", partition)
            await wait_for(lambda: len(taken) == 3)
            assert sorted(taken) == [(BLOCKED, b"after"), (BLOCKED, b"after"), ("parties", b"entry")]
            assert await follower.behind() == 0


async def test_a_record_that_somebody_waits_for_is_not_kept_until_a_fetch_times_out(settings):
    """The gateway's answers come this way; a fetch that waited for more would add a fifth of a second to each."""
    came: list[float] = []
    async with publishing(settings) as publish, running(Follower(settings, (APPROVED,), lambda *_: came.append(time.monotonic()))):
        took = []
        for count in range(1, 6):
            await write(publish, settings, APPROVED, b"v")
            written = time.monotonic()
            await wait_for(lambda count=count: len(came) == count, every_s=0.001)
            took.append(came[-1] - written)
    assert min(took) < 0.1, took


async def test_what_has_been_read_counts_as_settled_and_what_has_not_does_not(settings):
    """An event of the gateway's stream carries it, and a reader that was away resumes from there: the very first one too."""
    told: list[int] = []
    follower = Follower(settings, (APPROVED, BLOCKED), lambda *_: told.append(follower.settled_ms))
    async with publishing(settings) as publish, running(follower):
        await follower.behind()
        assert follower.settled_ms == 0
        sent = await publish(settings.topic(APPROVED), 1, b"k", b"v")
        await wait_for(lambda: told)
        assert told == [sent.timestamp - 2000]
        later = await publish(settings.topic(BLOCKED), 0, b"k", b"v")
        await wait_for(lambda: len(told) == 2)
        assert sent.timestamp - 2000 <= told[1] <= later.timestamp - 2000


async def test_without_its_topics_it_does_not_start(kafka, prefix):
    settings = Settings(kafka=kafka, topic_prefix=prefix)
    with pytest.raises(CannotStart, match="ringfence topics --create"):
        await Follower(settings, (APPROVED,), lambda *_: None).start()
