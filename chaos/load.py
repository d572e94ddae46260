"""The load client, a process of its own: ``python -m chaos.load FILE``, where FILE holds its :class:`Orders` as JSON.

Open loop: request *n* is due at ``start + n / rate`` whether or not anybody keeps up. What the broker acknowledged is written to a
file of histories, one JSON line a record:

```
{"topic": "objections", "partition": 3, "offset": 17, "sent_at": 1795424400.012345, "acked_at": 1795424400.014567}
```

``sent_at`` is taken before the record is handed to the producer, both in unix seconds of this machine's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chaos.traffic import Put, Traffic
from config.settings import Settings
from rules.events import REQUEST_TOPIC
from rules.instants import SECOND

#: The loop sleeps at least this long; shorter sleeps cost more CPU than they gain.
_TICK_S = 0.002
_LINGER_MS = 4
# What is held for one partition while the broker is away: 18 s of requests at 1,000 a second and 8 partitions. The default of 16 KB
# would block the loop after a third of a second. A broker takes batches of up to 1 MiB.
_BATCH_BYTES = 900_000
_ACKNOWLEDGED_WITHIN_MS = 60_000


class Orders(msgspec.Struct, frozen=True):
    """What the load client is to do.

    Attributes:
        settings: topic prefix, partitions and broker of the guard, as of ``Settings``.
        seed: of the traffic.
        rate: requests a second.
        seconds: how long.
        clock_offset_s: the guard's clock, seconds ahead of this machine's.
        histories: file to append to.
        summary: file that gets a :class:`Summary` at the end.
    """

    settings: dict[str, Any]
    seed: int
    rate: float
    seconds: float
    clock_offset_s: float
    histories: str
    summary: str


class Summary(msgspec.Struct):
    """What was sent.

    Attributes:
        acknowledged: records by topic.
        unacknowledged: records that the broker never acknowledged; they may be in its log all the same.
        misplaced: partition and offset of requests that were put where they do not belong; they are answered elsewhere.
        late_max_s: by how much the loop was behind its own clock at worst.
    """

    acknowledged: dict[str, int]
    unacknowledged: int
    misplaced: list[tuple[int, int]]
    late_max_s: float


class Historian:
    """A producer that writes down what was sent and when it was acknowledged; use as an asynchronous context manager."""

    def __init__(self, settings: Settings, histories: Path) -> None:
        self._settings = settings
        self._path = histories
        self._producer = AIOKafkaProducer(
            **settings.kafka_client(),
            acks="all",
            linger_ms=_LINGER_MS,
            max_batch_size=_BATCH_BYTES,
            request_timeout_ms=_ACKNOWLEDGED_WITHIN_MS,
        )
        self.acknowledged: Counter[str] = Counter()
        self.unacknowledged = 0
        self.misplaced: list[tuple[int, int]] = []
        self._open = 0
        self._settled = asyncio.Event()

    async def __aenter__(self) -> Self:
        # Closed in __aexit__; opened once, because a line a millisecond is written.
        self._file: BinaryIO = self._path.open("ab", buffering=1 << 20)
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        self._file.close()

    async def send(self, put: Put) -> None:
        """Hand a record to the producer; its acknowledgement is noted when it comes."""
        sent_at = time.time()
        try:
            future = await self._producer.send(self._settings.topic(put.topic), put.value, put.key, partition=put.partition)
        except KafkaError:
            self.unacknowledged += 1
            return
        self._open += 1
        future.add_done_callback(self._noting(put, sent_at))

    async def settle(self) -> None:
        """Wait until every record that was sent is acknowledged or given up."""
        while self._open:
            self._settled.clear()
            await self._settled.wait()

    def _noting(self, put: Put, sent_at: float) -> Callable[[asyncio.Future[Any]], None]:
        def note(future: asyncio.Future[Any]) -> None:
            self._open -= 1
            self._settled.set()
            if future.cancelled() or future.exception() is not None:
                self.unacknowledged += 1
                return
            where = future.result()
            self.acknowledged[put.topic] += 1
            if put.partition is not None and put.topic == REQUEST_TOPIC:
                self.misplaced.append((where.partition, where.offset))
            self._file.write(
                b'{"topic":"%s","partition":%d,"offset":%d,"sent_at":%.6f,"acked_at":%.6f}\n'
                % (put.topic.encode(), where.partition, where.offset, sent_at, time.time())
            )

        return note


async def send_all(settings: Settings, histories: Path, puts: Iterable[Put]) -> int:
    """Send records as fast as the broker takes them and return when all are settled.

    Returns: how many were acknowledged.
    """
    async with Historian(settings, histories) as historian:
        for put in puts:
            await historian.send(put)
        await historian.settle()
        return historian.acknowledged.total()


async def run_load(orders: Orders) -> Summary:
    """Send the traffic at its rate; cancel to end early. Returns when everything is acknowledged or given up."""
    settings = Settings.model_validate(orders.settings)
    traffic = Traffic(orders.seed, orders.rate, settings.partitions)
    for _ in traffic.before():  # those are on file already, under the first ids of the same seed
        pass
    late_max_s = 0.0
    async with Historian(settings, Path(orders.histories)) as historian:
        start = time.monotonic()
        with contextlib.suppress(asyncio.CancelledError):
            for turn in range(int(orders.rate * orders.seconds)):
                behind_s = time.monotonic() - (start + turn / orders.rate)
                late_max_s = max(late_max_s, behind_s)
                if behind_s < 0:
                    await asyncio.sleep(max(-behind_s, _TICK_S))
                elif turn % 50 == 0:
                    await asyncio.sleep(0)  # a loop that is behind never waits above: let acknowledgements be noted
                for put in traffic.turn(round((time.time() + orders.clock_offset_s) * SECOND)):
                    await historian.send(put)
        await historian.settle()
        return Summary(dict(historian.acknowledged), historian.unacknowledged, historian.misplaced, late_max_s)


async def _until_told(orders: Orders) -> Summary:
    """The load, ended early by SIGTERM."""
    task = asyncio.create_task(run_load(orders))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _main(orders: Orders) -> None:
    Path(orders.summary).write_bytes(msgspec.json.encode(asyncio.run(_until_told(orders))))


if __name__ == "__main__":
    _main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Orders))
