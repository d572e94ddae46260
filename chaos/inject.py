"""Carries the schedule out: each fault is done to workers, proxies and servers, and written down with its start and end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import redis

from chaos.fleet import Fleet
from chaos.proxy import Proxy
from chaos.schedule import Fault, FaultKind
from streams.embedded import EmbeddedKafka, EmbeddedRedis

GUEST = "worker-3"
_GUEST_JOINS_WITHIN_S = 20.0


class Injected(msgspec.Struct):
    """A fault as it happened.

    Attributes:
        kind: of the schedule.
        planned_s: when it was due, seconds from the beginning of the window.
        started_at: when it had taken effect, unix seconds.
        ended_at: when its cause was gone, unix seconds; the guard may still be recovering.
        detail: what was hit, and how.
    """

    kind: FaultKind
    planned_s: float
    started_at: float
    ended_at: float
    detail: str


class Injector:
    """Does faults to a guard; several may be under way at once.

    Args:
        fleet: the workers.
        kafka: the broker, which ``kafka_proxy`` stands in front of.
        redis_server: Redis, which ``redis_proxy`` stands in front of.
        kafka_proxy: to be cut and slowed.
        redis_proxy: to be cut and slowed.
        log: gets a JSON line for each fault when it is over.
    """

    def __init__(
        self, fleet: Fleet, kafka: EmbeddedKafka, redis_server: EmbeddedRedis, kafka_proxy: Proxy, redis_proxy: Proxy, log: Path
    ) -> None:
        self._fleet, self._kafka, self._redis = fleet, kafka, redis_server
        self._kafka_proxy, self._redis_proxy = kafka_proxy, redis_proxy
        self._path = log
        self.done: list[Injected] = []
        self.under_way: list[FaultKind] = []
        self._faults: dict[FaultKind, Callable[[Fault, _Times], Coroutine[None, None, str]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "redis-flush": self._flush,
            "redis-restart": self._restart_redis,
            "broker-restart": self._restart_broker,
            "rebalance": self._rebalance,
            "kafka-cut": lambda fault, times: _cut(self._kafka_proxy, fault, times),
            "redis-cut": lambda fault, times: _cut(self._redis_proxy, fault, times),
            "kafka-delay": lambda fault, times: _slow(self._kafka_proxy, fault, times),
            "redis-delay": lambda fault, times: _slow(self._redis_proxy, fault, times),
        }

    async def run(self, faults: Sequence[Fault]) -> None:
        """Carry out a schedule from now on, and return when the last fault is over.

        Raises:
            CannotStart: a server did not come up again.
        """
        begin = time.monotonic()
        with self._path.open("wb") as log:
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    await asyncio.sleep(begin + fault.at_s - time.monotonic())
                    group.create_task(self._inject(fault, log))

    async def _inject(self, fault: Fault, log: BinaryIO) -> None:
        times = _Times()
        self.under_way.append(fault.kind)
        detail = await self._faults[fault.kind](fault, times)
        self.under_way.remove(fault.kind)
        injected = Injected(fault.kind, fault.at_s, times.started_at, time.time(), detail)
        self.done.append(injected)
        log.write(msgspec.json.encode(injected) + b"\n")
        log.flush()

    def _victim(self, fault: Fault) -> str:
        names = self._fleet.steady() or self._fleet.names
        return names[int(fault.pick * len(names))]

    async def _kill(self, fault: Fault, times: _Times) -> str:
        name = self._victim(fault)
        self._fleet.kill(name)
        times.start()
        return name

    async def _pause(self, fault: Fault, times: _Times) -> str:
        name = self._victim(fault)
        self._fleet.pause(name)
        times.start()
        await asyncio.sleep(fault.duration_s)
        self._fleet.resume(name)
        return f"{name} for {fault.duration_s:.1f} s"

    async def _flush(self, _fault: Fault, times: _Times) -> str:
        # Redis may be on its way up again after another fault, and is empty then.
        with suppress(redis.RedisError), redis.Redis.from_url(self._redis.url) as client:
            await asyncio.to_thread(client.flushall)
        times.start()
        return "FLUSHALL"

    async def _restart_redis(self, fault: Fault, times: _Times) -> str:
        await asyncio.to_thread(self._redis.kill)
        times.start()
        await asyncio.sleep(fault.duration_s)
        await asyncio.to_thread(self._redis.start)
        return f"down for {fault.duration_s:.1f} s, empty afterwards"

    async def _restart_broker(self, fault: Fault, times: _Times) -> str:
        await asyncio.to_thread(self._kafka.kill)
        times.start()
        await asyncio.sleep(fault.duration_s)
        await asyncio.to_thread(self._kafka.start)
        return f"down for {time.time() - times.started_at:.1f} s"

    async def _rebalance(self, fault: Fault, times: _Times) -> str:
        if fault.pick < 0.5:
            self._fleet.join(GUEST)
            times.start()
            # One that has not joined yet would leave without a rebalance.
            joined = await self._fleet.becomes_ready(GUEST, _GUEST_JOINS_WITHIN_S)
            await asyncio.sleep(fault.duration_s)
            code = await asyncio.to_thread(self._fleet.leave, GUEST)
            return f"{GUEST} {'joined' if joined else 'could not join'}, and left (code {code}) {fault.duration_s:.1f} s later"
        name = self._victim(fault)
        times.start()
        code = await asyncio.to_thread(self._fleet.leave, name)
        await asyncio.sleep(fault.duration_s / 2)
        self._fleet.join(name)
        return f"{name} left (code {code}), and came back {fault.duration_s / 2:.1f} s later"


class _Times:
    """When a fault had taken effect; unix seconds."""

    started_at = 0.0

    def start(self) -> None:
        """It has, now."""
        self.started_at = time.time()


async def _cut(proxy: Proxy, fault: Fault, times: _Times) -> str:
    proxy.cut()
    times.start()
    await asyncio.sleep(fault.duration_s)
    proxy.mend()
    return f"no connection for {fault.duration_s:.1f} s"


async def _slow(proxy: Proxy, fault: Fault, times: _Times) -> str:
    proxy.slow(fault.delay_ms / 1000)
    times.start()
    await asyncio.sleep(fault.duration_s)
    proxy.slow(0)
    return f"answers {fault.delay_ms} ms later for {fault.duration_s:.1f} s"
