"""Whether a worker is ready, looked at twice a second, and if not, why.

A look asks Redis and the broker, and ends within seconds whether they answer or not. What it finds wrong with Redis, with the topics
or with a clock also blocks every request (``Guard.refusal``) until it is right again. Work that stands still although the servers
answer ends the worker; while they do not, ending would help nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import structlog

from agents.context import Guard
from ops.ready_file import ReadyFile, Reason
from rules.errors import CannotStart, StateError, Stuck
from rules.events import REQUEST_TOPIC
from streams.lag import LagWatch, Log
from streams.partition import Partition
from streams.redis_client import RedisWatch
from streams.tasks import Tasks
from streams.topics import check_topics

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.5
_LOOK_OFTEN_S = 0.1  # until it is ready for the first time; somebody waits for that
_TOPICS_EVERY_S = 10.0
_ANSWER_S = 3.0
_LATE_S = 5.0
_STUCK_S = 60.0
#: What makes every write fail: requests wait, and need not be refused.
_WRITES_FAIL = frozenset({"redis-replica"})
_FAILED_LATELY_S = 5.0


#: Every code that a reason may have.
CODES = (
    "unassigned",
    "taking-over",
    "rebuilding",
    "facts-lag",
    "requests-wait",
    "redis-away",
    "kafka-away",
    "redis-policy",
    "redis-evicted",
    "redis-replica",
    "redis-cluster",
    "topics",
    "clock",
)


class Readiness:
    """The looks at one worker. ``reasons`` is what the last one found; None before the first, empty if the worker is ready."""

    def __init__(
        self,
        guard: Guard,
        lag: LagWatch,
        redis: RedisWatch,
        file: ReadyFile | None,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._guard = guard
        self._lag = lag
        self._redis = redis
        self._file = file
        self._fail = fail
        self._tasks = Tasks(fail)
        self._was_ready_once: set[Partition] = set()
        self._redis_unfit: dict[str, str] = {}
        self._redis_answers = True
        self._topics_wrong: list[str] = []
        self._stopped = False
        self._writing = asyncio.Lock()
        self._said: list[str] | None = None
        self.reasons: list[Reason] | None = None
        self.assigned = False

    @property
    def ready(self) -> bool:
        """Whether the last look found nothing wrong."""
        return self.reasons == []

    async def run(self) -> None:
        """Look, say and write down what was found, again and again, until :meth:`stop`."""
        self._tasks.start(self._check_topics())
        once_ready = False
        while not self._stopped:
            self.reasons = await self.look()
            self._say(self.reasons)
            once_ready = once_ready or self.ready
            async with self._writing:
                if not self._stopped:
                    await self._write(self.reasons)
            await asyncio.sleep(_LOOK_EVERY_S if once_ready else _LOOK_OFTEN_S)

    async def stop(self) -> None:
        """Look no more, and write down that the worker ends."""
        # Said besides being cancelled: asyncio.wait_for of Python 3.11, in aiokafka and Redis' client, can swallow a cancellation.
        self._stopped = True
        self._tasks.cancel()
        async with self._writing:
            await self._write([Reason("stopping", "the worker ends")])

    async def look(self) -> list[Reason]:
        """Everything that keeps the worker from being ready now."""
        about_partitions = self._about_partitions()
        about_redis = await self._about_redis()
        about_logs = await self._about_logs()
        clocks = self._guard.clocks.differing().items()
        found = [
            *about_partitions,
            *about_redis,
            *about_logs,
            *(
                Reason("clock", f"{whose} clock is {abs(by):.1f} s {'ahead of' if by > 0 else 'behind'} this worker's")
                for whose, by in clocks
            ),
            *(Reason("topics", problem) for problem in self._topics_wrong),
        ]
        self._guard.blocked_with = (
            "S_STATE_STALE" if self._topics_wrong else "S_STATE_UNAVAILABLE" if self._redis_unfit.keys() - _WRITES_FAIL else None
        )
        return found

    def _about_partitions(self) -> list[Reason]:
        """What is not taken over yet, or being rebuilt. A worker that got no partition at all is ready to stand in."""
        if not self.assigned:
            return [Reason("unassigned", "the consumer group has not given this worker its share of the partitions")]
        partitions = self._guard.ownership.all
        self._was_ready_once = {one for one in partitions if one.ready or one in self._was_ready_once}
        found = []
        new = [one for one in partitions if one not in self._was_ready_once]
        if new:
            found.append(Reason("taking-over", f"{len(new)} of {len(partitions)} partitions are not taken over yet"))
        rebuilt = [f"partition {one.number} {one.doing}" for one in partitions if one in self._was_ready_once and not one.ready]
        if rebuilt:
            found.append(Reason("rebuilding", "; ".join(rebuilt)))
        return found

    async def _about_redis(self) -> list[Reason]:
        self._redis_answers = False
        try:
            async with asyncio.timeout(_ANSWER_S):
                self._redis_unfit = await self._redis.look()
            self._redis_answers = True
        except (StateError, TimeoutError) as error:
            return [Reason("redis-away", str(error) or "Redis does not answer")]
        return [Reason(code, text) for code, text in self._redis_unfit.items()]

    async def _about_logs(self) -> list[Reason]:
        guard = self._guard
        # A publish that fails does so after its whole timeout; between two of them the broker has not become well.
        within_s = guard.settings.publish_timeout_s + _FAILED_LATELY_S
        troubled = any(trouble.within(within_s) for trouble in (guard.store.trouble, guard.publisher.trouble, guard.barrier.trouble))
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._lag.look(guard.ownership.all, served=self._redis_answers and not troubled)
        except (StateError, TimeoutError) as error:
            return [Reason("kafka-away", str(error) or "the broker does not say where the topics end")]
        self._end_if_stuck()
        now = monotonic()
        bearable_s = max(_LATE_S, guard.settings.barrier_timeout_s)
        return [_late(one, now) for one in self._lag.logs if _has_to_catch_up(one) or one.late_s(now) > bearable_s]

    def _end_if_stuck(self) -> None:
        stuck_s = max(_STUCK_S, 4 * self._guard.settings.barrier_timeout_s)
        for one in self._lag.logs:
            if one.stood_s > stuck_s:
                self._fail(
                    Stuck(f"{one.topic}/{one.partition}: nothing was worked off for {one.stood_s:.0f} s, and the servers answer")
                )

    async def _check_topics(self) -> None:
        """Keep looking whether the topics are still what they were at the start."""
        while not self._stopped:
            await asyncio.sleep(_TOPICS_EVERY_S)
            try:
                self._topics_wrong = await check_topics(self._guard.settings)
            except CannotStart as error:
                log.warning("the topics cannot be checked", reason=str(error))

    def _say(self, reasons: list[Reason]) -> None:
        """Log a change once: ready or not, or not ready for other reasons."""
        codes = sorted({reason.code for reason in reasons})
        if codes == self._said:
            return
        self._said = codes
        partitions = len(self._guard.ownership.all)
        if reasons:
            log.warning("not ready", reasons=[str(reason) for reason in reasons], partitions=partitions)
        else:
            log.info("ready", partitions=partitions)

    async def _write(self, reasons: list[Reason]) -> None:
        if self._file is not None:
            try:
                await asyncio.to_thread(self._file.write, reasons, len(self._guard.ownership.all))
            except OSError as error:
                log.warning("the readiness file cannot be written", reason=str(error))


def _has_to_catch_up(log_: Log) -> bool:
    """Whether facts lack that were there when they were first looked at. A backlog of requests keeps nobody from being ready."""
    return not log_.caught_up and log_.topic != REQUEST_TOPIC


def _late(log_: Log, now: float) -> Reason:
    count = max(0, log_.end - log_.done)
    if log_.topic == REQUEST_TOPIC:
        return Reason("requests-wait", f"partition {log_.partition}: {count:,} requests, the first for {log_.late_s(now):.1f} s")
    return Reason("facts-lag", f"{log_.topic}/{log_.partition} is {count:,} records behind, for {log_.late_s(now):.1f} s")
