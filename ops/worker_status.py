"""What each worker says of itself in Redis, for whoever shows all of them together (``GET /v1/overview`` of the gateway).

* ``PREFIX:worker:ID``  one :class:`WorkerStatus` as JSON, written every 2 s, gone 10 s after the last one or at a clean stop
* ``PREFIX:workers``    the ids of those that have written within the hour, by the time of the last one, so that nobody has to scan
  for them

No decision depends on it. It goes over a connection of its own, with bounds; a Redis that does not answer holds up nothing but the
status itself. Nothing is lost when the keys are deleted: the next look writes them again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import msgspec
import redis.asyncio as redis
from redis.exceptions import RedisError

from agents.context import Guard
from ops.readiness import Readiness
from rules.errors import StateError
from rules.instants import format_instant
from streams import redis_client
from streams.lag import LagWatch

_EVERY_S = 2.0
_KEPT_S = 10
_LISTED_S = 3600  # far more than clocks differ: a worker whose clock is wrong is one that people look for
_ANSWER_S = 2.0


class StatusReason(msgspec.Struct, frozen=True):
    """Why a worker is not ready (``ops.readiness``)."""

    code: str
    text: str


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker as it saw itself at ``seen_at``.

    Instants are RFC 3339 of the worker's system clock; ``lag`` counts the records that were not worked off, by topic without prefix.
    """

    id: str
    host: str
    pid: int
    version: str
    rulebook: str
    started_at: str
    seen_at: str
    ready: bool
    reasons: list[StatusReason]
    partitions: list[int]
    lag: dict[str, int]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerStatus).decode


class StatusReport:
    """Writes down how one worker fares, from :meth:`run` to :meth:`stop`."""

    def __init__(self, guard: Guard, lag: LagWatch, readiness: Readiness) -> None:
        self._guard = guard
        self._lag = lag
        self._readiness = readiness
        self._client = redis_client.from_settings(guard.settings)
        self._first = WorkerStatus(
            id=secrets.token_hex(4),
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("ringfence"),
            rulebook=guard.book.version,
            started_at=_now(),
            seen_at=_now(),
            ready=False,
            reasons=[],
            partitions=[],
            lag={},
        )
        self._key, self._list = f"{guard.settings.redis_prefix}:worker:{self._first.id}", f"{guard.settings.redis_prefix}:workers"
        self._stopped = False
        self._writing = asyncio.Lock()

    def status(self) -> WorkerStatus:
        """How the worker fares now, as far as its last look goes."""
        readiness = self._readiness
        return msgspec.structs.replace(
            self._first,
            seen_at=_now(),
            ready=readiness.ready,
            reasons=[StatusReason(reason.code, reason.text) for reason in readiness.reasons or ()],
            partitions=sorted(partition.number for partition in self._guard.ownership.all),
            lag=self._lag.records,
        )

    async def run(self) -> None:
        """Write again and again, until cancelled."""
        while True:
            await self._write()
            await asyncio.sleep(_EVERY_S)

    async def stop(self) -> None:
        """Take the status away and let go of the connection; takes no longer than an answer of Redis may."""
        self._stopped = True
        try:
            async with asyncio.timeout(_ANSWER_S), self._writing:
                pipeline = self._client.pipeline(transaction=True)
                pipeline.delete(self._key)
                pipeline.zrem(self._list, self._first.id)
                await pipeline.execute()
        except (RedisError, OSError):
            pass  # it goes by itself
        await redis_client.close(self._client)

    async def _write(self) -> None:
        now = time.time()
        try:
            async with asyncio.timeout(_ANSWER_S), self._writing:
                if self._stopped:
                    return
                pipeline = self._client.pipeline(transaction=True)
                pipeline.set(self._key, _encode(self.status()), ex=_KEPT_S)
                pipeline.zadd(self._list, {self._first.id: now})
                pipeline.zremrangebyscore(self._list, "-inf", now - _LISTED_S)
                pipeline.expire(self._list, _LISTED_S)
                await pipeline.execute()
        except (RedisError, OSError):
            pass  # readiness says so, to everybody


async def workers(client: redis.Redis, prefix: str) -> list[WorkerStatus]:
    """The workers that have said something within the last 10 s, in the order of their hosts and process ids.

    Args:
        client: any connection to the guard's Redis.
        prefix: what the guard's keys begin with.

    Raises:
        StateError: Redis does not answer.
    """
    try:
        ids: Any = await client.zrange(f"{prefix}:workers", 0, -1)  # redis-py tells of every shape that an answer may have
        raw = await client.mget([f"{prefix}:worker:{name.decode()}" for name in ids]) if ids else []
    except (RedisError, OSError) as error:
        raise StateError(f"Redis does not answer: {error}") from None
    found = []
    for one in raw:
        with suppress(msgspec.MsgspecError):  # of another version, whose status says other things
            found += [_decode(one)] if one is not None else []
    return sorted(found, key=lambda status: (status.host, status.pid, status.id))


def _now() -> str:
    return format_instant(time.time_ns() // 1000)
