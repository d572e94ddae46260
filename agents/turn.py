"""A turn of requests: read the state once, decide, write ahead, publish, and only then let the offsets be committed.

1. Barrier: the caller has waited until what the broker had acknowledged is applied (``streams.barrier``).
2. One MGET: states, entries and metas. A request that was decided before is answered with the record of then; the rest is decided.
3. One script a partition stores journal and entries, only if the meta is still as read in 2; otherwise read and decide again.
4. Publish with acks=all to the partition of the requests, wait, acknowledge.

So a decision is in Redis before anybody can see it, and a crash at any point repeats the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from time import monotonic
from typing import Any, cast

import msgspec
import structlog

from agents.context import Answered, Guard
from agents.rejects import rejection
from rules.decide import decide, refuse
from rules.decision import Decision
from rules.e164 import masked
from rules.errors import DeliveryFailed, InputError, StateError
from rules.events import MAX_RECORD_BYTES, REQUEST_TOPIC, read_event
from rules.instants import parse_instant
from rules.requests import CallRequest
from streams.barrier import OUT_OF_REACH, Ends
from streams.kept import Admission, Entry, Journalled, Meta, Snapshot, keep_entries_s
from streams.outputs import output_of
from streams.partition import Partition
from streams.publisher import Headers, Output, moved_home
from streams.trace_context import context_of
from streams.transport import Fetched

log = structlog.get_logger(__name__)

_RETRY_S = 0.2
_encode_decision = msgspec.json.Encoder().encode
_logged_ms = attrgetter("timestamp")
_encode_content = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, eq=False)
class Work:
    """The requests of one partition that a turn decides.

    ``closed_s`` is when it was closed, by the monotonic clock; ``ends`` is where the fact topics ended then, and ``stale`` says that
    they could not be applied in time; ``is_noted`` that this wait has been counted. ``looked`` is what Redis said while the ends were
    asked, if that was done. ``contexts`` holds the trace contexts of the requests that have one, by input offset. ``unpublished`` is
    what the broker has not acknowledged at the last attempt; ``publishing`` is open from the moment at which Redis may have taken the
    decisions until they are published.
    """

    partition: Partition
    batches: list[Fetched]
    closed_s: float
    ends: Ends = OUT_OF_REACH
    stale: bool = False
    is_read: bool = False
    is_noted: bool = False
    looked: Snapshot | None = None
    requests: list[tuple[int, CallRequest]] = field(default_factory=list)
    contexts: dict[int, Headers] = field(default_factory=dict)
    replayed: list[Journalled] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    unpublished: Sequence[Output] | None = None
    publishing: ExitStack = field(default_factory=ExitStack)

    @property
    def numbers(self) -> list[str]:
        """Every number that is asked for, once."""
        return list(dict.fromkeys(request.number for _, request in self.requests))


class Turn:
    """Decides the work of some partitions together, in one read and one round of scripts, and publishes it partition by partition."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def read(self, work: Work) -> None:
        """Sort the records of new work: to be replayed, to be sent home, to be rejected, to be decided.

        Not before the partition is ours, for then its journal is known.
        """
        work.is_read = True
        for fetched in work.batches:
            for record in fetched.records:
                if record.headers and (context := context_of(record.headers)):
                    work.contexts[record.offset] = context
                journalled = work.partition.journal.get(record.offset)
                if journalled is not None:
                    work.replayed.append(journalled)
                else:
                    self._read_request(work, record)

    async def look(self, works: list[Work]) -> None:
        """Read the state for works while the broker is still asked where the facts end.

        It serves if it turns out to hold all of them, as it mostly does, and saves a turn one of its four round trips.
        """
        asking = [work for work in works if work.requests]
        if asking:
            with suppress(StateError):  # who decides asks again, and says so
                snapshots = await self._read_states(asking)
                for work in asking:
                    work.looked = snapshots[work.partition.number]

    async def decide(self, works: list[Work]) -> list[Work]:
        """Decide and store; ends when all is in Redis, or the partitions are no longer ours.

        Returns:
            What is left to be decided once its partition has been rebuilt.
        """
        return await self._admit([work for work in works if work.requests])

    async def publish(self, work: Work) -> bool:
        """Try to publish what was decided for a partition and has not been acknowledged yet; then acknowledge its requests.

        Returns:
            Whether that is done, or the partition no longer ours. If not, the broker did not take everything: it has been said why.
        """
        if work.partition.revoked:
            work.publishing.close()
            return True
        if work.unpublished is None:
            work.publishing.enter_context(work.partition.publishing())
            work.unpublished = self._outputs(work)
        try:
            await self._guard.publisher.publish(work.unpublished)
        except DeliveryFailed as error:
            work.unpublished = error.undelivered
            self._guard.counts.update(error.refusals)
            log.warning("decisions wait", partition=work.partition.number, reason=str(error))
            return False
        work.publishing.close()
        self._note_answered(work)
        for fetched in work.batches:
            fetched.acknowledge()
        work.partition.next_request = work.batches[-1].next_offset
        return True

    def _note_answered(self, work: Work) -> None:
        """Count what a work that is published has cost, and tell who follows traces."""
        guard, took_s = self._guard, monotonic() - work.closed_s
        guard.timings.turn.took(took_s)
        for fetched in work.batches:
            guard.timings.answered(map(_logged_ms, fetched.records))
        if work.contexts and guard.on_answered is not None:
            for item in work.replayed:
                context = work.contexts.get(item.offset)
                if context is not None:
                    guard.on_answered(Answered(context, work.partition.number, item, took_s))

    def _read_request(self, work: Work, record: Any) -> None:  # aiokafka's record
        sent_home = moved_home(record, REQUEST_TOPIC, self._guard.settings)
        if sent_home is not None:
            self._guard.counts[f"misplaced {REQUEST_TOPIC}"] += 1
            work.outputs.append(sent_home)
            return
        try:
            request, unknown_fields = read_event(REQUEST_TOPIC, record.key, record.value)
        except InputError as error:
            self._reject(work, record, error)
            return
        self._guard.counts["unknown fields"] += unknown_fields
        work.requests.append((record.offset, cast("CallRequest", request)))

    def _reject(self, work: Work, record: Any, error: InputError) -> None:  # aiokafka's record
        self._guard.counts[f"rejected {REQUEST_TOPIC} {error.code}"] += 1
        work.outputs.append(rejection(self._guard.settings, record, REQUEST_TOPIC, error, self._guard.clock.now()))

    async def _admit(self, works: list[Work]) -> list[Work]:
        """Decide and store until the store has taken every decision. Requests wait here while Redis is away: nothing is approved.

        Returns:
            The work of partitions that are being rebuilt, or have to catch up after that: they must hold up no other.
        """
        while works := [work for work in works if not work.partition.revoked]:
            usable = [work for work in works if self._usable(work)]
            if not usable:
                break
            try:
                stored = await self._admit_once(usable)
            except StateError as error:
                log.warning("requests wait", partitions=[work.partition.number for work in works], reason=str(error))
                stored = []
            works = [work for work in works if work not in stored]
            if works and not stored:
                await asyncio.sleep(_RETRY_S)
        return works

    def _usable(self, work: Work) -> bool:
        """Whether the partition's state may be used for this work; it may be rebuilt meanwhile, and then has to catch up first."""
        return work.partition.ready and (work.stale or self._guard.barrier.is_reached(work.partition, work.ends))

    async def _admit_once(self, works: list[Work]) -> list[Work]:
        """Read, decide and store once. Returns the work whose decisions were stored; the rest has to be decided again."""
        guard = self._guard
        # What was read before the ends were known serves if it is the state of now, for that reaches them.
        snapshots = {
            work.partition.number: work.looked for work in works if work.looked is not None and work.looked.meta == work.partition.meta
        }
        for work in works:
            work.looked = None
        if unread := [work for work in works if work.partition.number not in snapshots]:
            snapshots |= await self._read_states(unread)
        decided = []
        for work in works:
            if await self._trusted(work, snapshots[work.partition.number].meta):
                decided.append(_Decided(guard, work, snapshots[work.partition.number]))
                await asyncio.sleep(0)  # an objection of another partition need not wait until all of this is decided
        with ExitStack() as storing:
            # Whoever rebuilds a partition from its outputs waits until what Redis may have taken by now has been published.
            for made in decided:
                storing.enter_context(made.work.partition.publishing())
            to_store = [made for made in decided if made.admission.journal]
            turns = dict(zip((id(one) for one in to_store), await guard.store.admit([one.admission for one in to_store]), strict=True))
            stored = []
            for made in decided:
                partition = made.work.partition
                admitted = turns.get(id(made))  # None: there was nothing to store
                if admitted is None or admitted > 0:
                    partition.turns = max(admitted or 0, partition.turns)
                    self._stored(made)
                    stored.append(made.work)
                elif admitted < 0:
                    guard.ownership.forgot(partition, None)
        return stored

    async def _read_states(self, works: list[Work]) -> dict[int, Snapshot]:
        return await self._guard.store.read_for_turn({work.partition.number: work.numbers for work in works})

    def _stored(self, made: _Decided) -> None:
        made.work.publishing.enter_context(made.work.partition.publishing())
        made.work.replayed += made.admission.journal
        made.work.outputs += made.outputs
        self._guard.counts.update(made.counts)

    async def _trusted(self, work: Work, seen: Meta | None) -> bool:
        """Whether the state is ours, and not older than what we know to be applied or what the batch must be decided with."""
        mine = work.partition.meta
        if mine is None:
            return False
        if seen is None or seen.epoch != mine.epoch or seen.incarnation != mine.incarnation:
            await self._guard.ownership.reconcile(work.partition, seen)
            return False
        if seen.is_behind(mine):
            # A fact batch may just have been written, with our copy of the meta to follow; then the next look agrees.
            current = await self._guard.store.meta(work.partition.number)
            if current is None or current.is_behind(mine):
                await self._guard.ownership.reconcile(work.partition, current)
            return False
        return True

    def _outputs(self, work: Work) -> list[Output]:
        """Everything that a work has to publish."""
        settings, partition = self._guard.settings, work.partition.number
        items = sorted(work.replayed, key=lambda item: item.offset)
        return work.outputs + [output_of(settings, partition, item, work.contexts.get(item.offset, ())) for item in items]


class _Decided:
    """The decisions of one partition's work against one snapshot, ready to be stored."""

    def __init__(self, guard: Guard, work: Work, snapshot: Snapshot) -> None:
        self._guard = guard
        self.work = work
        self._snapshot = snapshot
        self._now = guard.clock.now()
        self._refusal = guard.refusal
        meta = cast("Meta", snapshot.meta)
        self._as_of = guard.as_of(meta)
        self._remembered: dict[str, list[Entry]] = {}
        self._unreadable: set[str] = set()
        self.counts: dict[str, int] = {}
        self.outputs: list[Output] = []
        journal = [self._answer(offset, request) for offset, request in work.requests]
        remembered = {number: entries for number, entries in self._remembered.items() if entries}
        self.admission = Admission(
            partition=work.partition.number,
            seen=meta,
            turns=work.partition.turns,
            journal=[item for item in journal if item is not None],
            entries=remembered,
            keep_s=keep_entries_s(chain.from_iterable(remembered.values()), self._now, guard.settings.request_memory_s),
        )

    def _answer(self, offset: int, request: CallRequest) -> Journalled | None:
        """The record that answers a request: that of its first decision, or a new one; None for a repeat with other content."""
        entries = self._entries(request.number)
        fingerprint = _fingerprint(request)
        earlier = next((entry for entry in entries if entry.request_id == request.request_id), None)
        if earlier is not None:
            if earlier.fingerprint and earlier.fingerprint != fingerprint:
                self._conflict(offset)
                return None
            self._count("repeated")
            return Journalled(offset, earlier.approved, request.number, earlier.record, fingerprint)
        decision = self._decide(request)
        record = _encode_decision(decision)
        if len(record) > MAX_RECORD_BYTES:
            log.error("a decision is too large to be published", number=masked(request.number), request_id=request.request_id)
            decision = self._refuse(request, "S_STATE_UNAVAILABLE")
            record = _encode_decision(decision)
        valid_until = parse_instant(decision.valid_until) if decision.valid_until is not None else 0
        entries.append(
            Entry(request.request_id, fingerprint, decision.approved, self._now, valid_until, record, offset, request.subject)
        )
        self._count(decision.decision)
        for code in decision.reasons:
            self._count(f"reason {code}")
        if decision.basis is not None:
            self._count(f"basis {decision.basis}")
        return Journalled(offset, decision.approved, request.number, record, fingerprint)

    def _entries(self, number: str) -> list[Entry]:
        """What is remembered of a number's decisions, this turn's included."""
        entries = self._remembered.get(number)
        if entries is None:
            try:
                known = self._snapshot.entries(number)
            except StateError:
                log.exception("an entry cannot be read", number=masked(number))
                self._unreadable.add(number)
                known = []
            entries = [entry for entry in known if entry.remembered(self._now, self._guard.settings.request_memory_s)]
            self._remembered[number] = entries
        return entries

    def _decide(self, request: CallRequest) -> Decision:
        guard = self._guard
        if self._refusal is not None:
            return self._refuse(request, self._refusal)
        if self.work.stale:
            return self._refuse(request, "S_STATE_STALE")
        if request.number in self._unreadable:  # it may have been decided before; a second decision must not approve
            return self._refuse(request, "S_STATE_UNAVAILABLE")
        try:
            return decide(request, self._snapshot.facts(request.number), guard.reference, guard.book, self._now, self._as_of)
        except Exception:
            # Whatever a rule or the state breaks on, the answer is no: an exception is never an approval.
            log.exception("a request could not be decided", number=masked(request.number), request_id=request.request_id)
            return self._refuse(request, "S_STATE_UNAVAILABLE")

    def _refuse(self, request: CallRequest, code: str) -> Decision:
        return refuse(request, self._guard.book, code, self._now, self._as_of)

    def _conflict(self, offset: int) -> None:
        error = InputError("conflict", "request_id", "this request_id was asked for this number with other content")
        self._count(f"rejected {REQUEST_TOPIC} {error.code}")
        record = next(one for fetched in self.work.batches for one in fetched.records if one.offset == offset)
        self.outputs.append(rejection(self._guard.settings, record, REQUEST_TOPIC, error, self._now))

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _fingerprint(request: CallRequest) -> bytes:
    """Eight bytes that tell a repeat of a request from another one with its id."""
    return hashlib.blake2b(_encode_content(request.content()), digest_size=8).digest()
