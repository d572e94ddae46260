"""The agent of call-requests: gathers what has come for every partition and runs it in turns, one at a time for each partition.

At a low load every fetch brings one record; an agent that made a turn of each would fall seconds behind at 1,000 requests a second.
So each turn takes all that waits. A partition whose facts are not applied yet, or whose decisions the broker does not take, is left to
wait on its own and holds up no other: when too much waits, what waits for such a partition is dropped, and read again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from time import monotonic

import structlog

from agents.context import Guard
from agents.turn import Turn, Work
from rules.errors import StateError
from rules.events import REQUEST_TOPIC
from streams.barrier import OUT_OF_REACH
from streams.partition import Partition
from streams.tasks import Tasks
from streams.transport import Fetched

log = structlog.get_logger(__name__)

_PROMPT_S = 0.05  # facts that are under way are applied within this, as a rule; who needs longer waits apart
_PUBLISHED_S = 0.5  # decisions are acknowledged within this, as a rule; the next turn does not wait longer for them
_RETRY_S, _MOST_RETRY_S = 0.2, 3.0
_MOST_WAITING = 20_000


class CallRequestAgent:
    """Decides call requests."""

    def __init__(self, guard: Guard, fail: Callable[[BaseException], None]) -> None:
        self._guard = guard
        self._turn = Turn(guard)
        self._waiting: dict[Partition, list[Fetched]] = {}
        #: In a turn; those of them that wait for facts or for the broker; those of these whose requests have been dropped.
        self._busy: set[Partition] = set()
        self._held_up: set[Partition] = set()
        self._passed_over: set[Partition] = set()
        self._tasks = Tasks(fail)
        self._something = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, batches: AsyncIterable[Fetched]) -> None:
        """Gather batches as they come, until the stream ends; turns run beside."""
        self._tasks.start(self._run_turns())
        try:
            async for fetched in batches:
                partition = self._guard.ownership.get(fetched.tp.partition)
                if partition is None or partition in self._passed_over:
                    continue  # of an assignment that is over, and read by the new owner; or to be read again
                if fetched.records:
                    self._guard.publisher.clock.seen(fetched.records[-1].timestamp / 1000)
                self._waiting.setdefault(partition, []).append(fetched)
                self._something.set()
                while self._records_waiting() > _MOST_WAITING:
                    self._pass_over()
                    if self._records_waiting() > _MOST_WAITING:
                        self._room.clear()
                        await self._room.wait()
        finally:
            self._tasks.cancel()

    def _records_waiting(self) -> int:
        return sum(len(fetched.records) for batches in self._waiting.values() for fetched in batches)

    def _pass_over(self) -> None:
        """Drop what waits for partitions that are held up, so that there is room for the others; they read it again."""
        for partition in self._held_up & self._waiting.keys():
            del self._waiting[partition]
            self._passed_over.add(partition)

    async def _go_on(self, partition: Partition) -> None:
        """A partition is through with its turn: it may be in the next one, with what was dropped meanwhile read again."""
        self._busy.discard(partition)
        self._held_up.discard(partition)
        if partition in self._passed_over:
            self._passed_over.discard(partition)
            self._waiting.pop(partition, None)
            if not partition.revoked and partition.next_request is not None:
                await self._guard.ownership.rewind(partition, REQUEST_TOPIC, partition.next_request)
        self._something.set()

    async def _run_turns(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            while works := self._take():
                await self._run_turn(works)

    def _take(self) -> dict[Partition, list[Fetched]]:
        """All that waits for partitions which are not in a turn, up to the most that a turn decides."""
        taken: dict[Partition, list[Fetched]] = {}
        room = self._guard.settings.batch_max
        for partition in [one for one in self._waiting if one not in self._busy]:
            if partition.revoked:
                del self._waiting[partition]
                continue
            if room <= 0:
                continue
            batches = self._waiting[partition]
            taken[partition] = [batches.pop(0)]
            room -= len(taken[partition][0].records)
            while batches and room > 0:
                room -= len(batches[0].records)
                taken[partition].append(batches.pop(0))
            if not batches:
                del self._waiting[partition]
        self._room.set()
        return taken

    async def _run_turn(self, taken: dict[Partition, list[Fetched]]) -> None:
        """One turn over everything taken. Partitions that must wait for their facts are finished apart."""
        works = await self._frozen([work for partition, batches in taken.items() if (work := await self._opened(partition, batches))])
        barrier = self._guard.barrier
        unreached = [
            work for work in works if not (work.stale and work.partition.ready) and not barrier.is_reached(work.partition, work.ends)
        ]
        if unreached:
            await asyncio.gather(*(barrier.reached(work.partition, work.ends, _PROMPT_S) for work in unreached))
        late = [work for work in works if not work.is_read or (work in unreached and not barrier.is_reached(work.partition, work.ends))]
        self._finish_apart(late)
        prompt = [work for work in works if work not in late]
        self._note_waits(prompt)
        if prompt:
            left = await self._turn.decide(prompt)
            self._finish_apart(left)
            await self._publish([work for work in prompt if work not in left])

    async def _opened(self, partition: Partition, batches: list[Fetched]) -> Work | None:
        """The work that batches make, read if the partition is ours; None if requests are missing before them."""
        if await self._has_gap(partition, batches):
            return None
        work = Work(partition, batches, monotonic())
        if partition.ready:
            self._turn.read(work)
        return work

    def _note_waits(self, works: list[Work]) -> None:
        """Count, once, what the barrier has cost these; one that is refused whatever its facts has not asked for them."""
        now = monotonic()
        for work in works:
            if work.ends is not OUT_OF_REACH and not work.is_noted:
                work.is_noted = True
                self._guard.timings.barrier.took(now - work.closed_s)

    def _finish_apart(self, works: list[Work]) -> None:
        """Let partitions that have to wait go on by themselves, and the next turn begin without them."""
        for work in works:
            self._busy.add(work.partition)
            self._held_up.add(work.partition)
            self._tasks.start(self._finish_late(work))

    async def _publish(self, works: list[Work]) -> None:
        """Publish what was decided, each partition for itself; those that the broker does not take in time are finished apart."""
        self._busy.update(work.partition for work in works)
        if works:
            await asyncio.wait([self._tasks.start(self._finish(work)) for work in works], timeout=_PUBLISHED_S)

    async def _finish(self, work: Work) -> None:
        """Publish until the broker has acknowledged all of it; what it refuses is neither left out nor replaced."""
        pause_s = _RETRY_S
        try:
            while not await self._turn.publish(work):
                self._held_up.add(work.partition)
                self._room.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _MOST_RETRY_S)
        finally:
            await self._go_on(work.partition)

    async def _has_gap(self, partition: Partition, batches: list[Fetched]) -> bool:
        """Whether requests are missing before a batch; if so they are read again, and the batch with them."""
        expected = partition.next_request
        for fetched in batches:
            if expected is not None and fetched.first_offset > expected:
                await self._guard.ownership.rewind(partition, REQUEST_TOPIC, expected)
                self._waiting.pop(partition, None)
                return True
            expected = fetched.next_offset
        return False

    async def _frozen(self, works: list[Work]) -> list[Work]:
        """Works of a turn with the ends that they must be decided with, asked after the batches were closed.

        While every request is refused there is nothing to wait for, and some of the topics may not even exist any more.
        """
        while works:
            if self._guard.refusal is not None:
                for work in works:
                    work.stale = True
                break
            try:
                ends, _ = await asyncio.gather(
                    self._guard.barrier.ends([work.partition.number for work in works]), self._turn.look(works)
                )
            except StateError as error:
                log.warning("requests wait", reason=str(error))
                await asyncio.sleep(_RETRY_S)
                works = [work for work in works if not work.partition.revoked]
            else:
                for work in works:
                    work.ends = ends
                break
        return works

    async def _finish_late(self, work: Work) -> None:
        """Wait for one partition's facts, within bounds, and decide: with them, or blocked as stale."""
        partition, barrier = work.partition, self._guard.barrier
        while not partition.revoked:
            before = partition.meta
            reached = await barrier.reached(partition, work.ends, self._guard.settings.barrier_timeout_s)
            if not partition.ready:
                continue  # without the state not even a refusal can be remembered: wait until it is taken over or rebuilt
            work.stale = work.stale or not reached
            if work.stale and partition.meta is before:
                await self._guard.ownership.unstick(partition, work.ends)
            if not work.is_read:
                if await self._has_gap(partition, work.batches):
                    await self._go_on(partition)
                    return
                self._turn.read(work)
            self._note_waits([work])
            if not await self._turn.decide([work]):
                break
        await self._finish(work)
