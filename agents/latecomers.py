"""Output records that this owner did not write: a publish of a former owner that landed late.

What Redis took is in the entries, whoever wrote it, so a late copy changes nothing. A decision that the entries do not know was
published by an owner whose Redis was lost as well: it is remembered from now on, and if it is an approval it is taken back, for nobody
knows any more what has come in since it was decided (protocol of a partition, step 1 of a turn).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import structlog

from agents.context import Guard
from agents.recalls import Recalls, publish_recalls
from rules.errors import DeliveryFailed, StateError
from streams.kept import FactBatch, Meta, Written, keep_entries_s
from streams.outputs import Published, take_in
from streams.partition import Partition

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.1


class Latecomers:
    """Looks for such records in all partitions, every 100 ms where nothing is being published and after every gap."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.look()
            except (StateError, DeliveryFailed) as error:
                log.warning("the outputs cannot be looked at", reason=str(error))

    async def look(self) -> None:
        """Take in what others have published.

        Raises:
            StateError: Redis or the broker does not answer.
            DeliveryFailed: the broker did not take a recall; Redis keeps it.
        """
        partitions = [partition for partition in self._guard.ownership.all if partition.ready and partition.outputs]
        idle = [partition for partition in partitions if not partition.is_publishing]
        if idle:
            ends = await self._guard.outputs.ends(partition.number for partition in idle)
            for partition in idle:
                if not partition.is_publishing:
                    self._note(partition, ends[partition.number])
        for partition in partitions:
            while partition.unexplained and partition.ready:
                topic, begin, end = partition.unexplained[0]
                found = await self._guard.outputs.read(partition.number, {topic: begin}, {topic: end})
                await self._take_in(partition, found)
                partition.unexplained.pop(0)

    @staticmethod
    def _note(partition: Partition, ends: dict[str, int]) -> None:
        """What lies beyond our own acknowledgements, where none of ours is under way."""
        for topic, end in ends.items():
            known = partition.outputs.get(topic, end)
            if end > known:
                partition.unexplained.append((topic, known, end))
                partition.outputs[topic] = end

    async def _take_in(self, partition: Partition, found: list[Published]) -> None:
        by_number: dict[str, list[Published]] = defaultdict(list)
        for one in found:
            by_number[one.item.number].append(one)
        if not by_number:
            return
        async with partition.lock:
            with partition.publishing():
                while partition.ready and not await self._write(partition, by_number):
                    pass

    async def _write(self, partition: Partition, by_number: dict[str, list[Published]]) -> bool:
        """Write the entries and publish the recalls. Returns whether that was done; if not, things have changed meanwhile."""
        guard, mine = self._guard, partition.meta
        if mine is None:
            return False
        seen = await guard.store.read_facts(partition.number, [], list(by_number))
        if seen.meta != mine:
            await guard.ownership.reconcile(partition, seen.meta)
            return False
        recalls = Recalls(guard, guard.as_of(mine))
        now, unknown = guard.clock.now(), 0
        for number, records in by_number.items():
            entries = {entry.request_id: entry for entry in seen.entries(number)}
            for one in records:
                if not take_in(entries, one):
                    continue
                unknown += 1
                taken = entries[one.request_id]
                if taken.approved and taken.valid_until > now:
                    entries[one.request_id] = recalls.take_back(number, taken, [])
                recalls.entries[number] = list(entries.values())
        if not unknown:
            return True
        log.warning("decisions of a former owner surfaced late", partition=partition.number, count=unknown, recalled=len(recalls.items))
        guard.counts["surfaced late"] += unknown
        # Another incarnation: a turn that has read the entries before is refused, and decides again with these.
        after = Meta(mine.epoch, mine.incarnation + 1, mine.applied)
        batch = FactBatch(
            partition=partition.number,
            seen=mine,
            after=after,
            turns=partition.turns,
            field=f"late:{after.incarnation}".encode(),
            changed={},
            compared=seen.raw_entries,
            entries=recalls.entries,
            recalls=recalls.items,
            keep_s=keep_entries_s(
                (entry for entries in recalls.entries.values() for entry in entries), now, guard.settings.request_memory_s
            ),
            stopped_ms=recalls.stopped_ms,
        )
        written = await guard.store.write_facts(batch)
        if written is Written.FORGOT:
            guard.ownership.forgot(partition, mine)
        if written is not Written.DONE:
            return False
        partition.set_meta(after)
        return await publish_recalls(guard, partition, batch)
