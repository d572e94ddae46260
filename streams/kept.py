"""What is kept of a partition in Redis, what is read of it together, and what is written together."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from rules.errors import StateError
from rules.facts import NumberFacts
from rules.instants import SECOND


class Meta(msgspec.Struct, array_like=True, frozen=True):
    """What Redis says of a partition.

    ``epoch`` grows with every change of owner; ``incarnation`` with every rebuild from nothing; ``applied`` is the next offset of each
    fact topic (name without prefix) whose effect is in the state.
    """

    epoch: int
    incarnation: int
    applied: dict[str, int]

    def is_behind(self, other: Meta) -> bool:
        """Whether it stands for less than another one of the same owner."""
        if (self.epoch, self.incarnation) < (other.epoch, other.incarnation):
            return True
        return any(self.applied.get(topic, 0) < offset for topic, offset in other.applied.items())


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One decision as it was published, by which a repeated request is answered and an approval taken back.

    ``fingerprint`` tells a repeat from a request of the same id with other content; empty where that is not known any more. Instants
    are microseconds; ``valid_until`` is that of the approval, also after its recall, and 0 where there was none. ``offset`` is the
    input offset; ``subject`` what the request was about, None also where that is not known any more.
    """

    request_id: str
    fingerprint: bytes
    approved: bool
    decided_at: int
    valid_until: int
    record: bytes
    offset: int = 0
    subject: str | None = None

    def remembered(self, now: int, memory_s: int) -> bool:
        """Whether a repeated request is still answered with it."""
        return self.decided_at > now - memory_s * SECOND or self.valid_until > now


class Journalled(msgspec.Struct, array_like=True, frozen=True):
    """A decision or recall that is, or is about to be, published: by input offset."""

    offset: int
    approved: bool
    number: str
    record: bytes
    fingerprint: bytes = b""


class Kept(NamedTuple):
    """What Redis keeps of a partition beside states and entries.

    ``journal`` by input offset; ``recalls`` by field; ``turns`` admitted so far; ``outputs``: next offset of each output topic (name
    without prefix) whose records are in the entries, empty if that is not known.
    """

    journal: dict[int, Journalled]
    recalls: dict[bytes, list[Journalled]]
    turns: int
    outputs: dict[str, int]


class Written(Enum):
    """What became of a write."""

    DONE = auto()
    CHANGED = auto()  # the meta is another one than was read
    FORGOT = auto()  # Redis knows of fewer turns than were admitted: it was rolled back
    MOVED = auto()  # an entry has changed since it was read: read again


pack = msgspec.msgpack.Encoder().encode
unpack_meta = msgspec.msgpack.Decoder(Meta).decode
unpack_journal = msgspec.msgpack.Decoder(list[Journalled]).decode
unpack_offsets = msgspec.msgpack.Decoder(dict[str, int]).decode
_unpack_facts = msgspec.msgpack.Decoder(NumberFacts).decode
_unpack_entries = msgspec.msgpack.Decoder(list[Entry]).decode


def decode_entries(raw: bytes | None) -> list[Entry]:
    """The decisions in a raw entry.

    Raises:
        StateError: they cannot be read.
    """
    try:
        return [] if raw is None else _unpack_entries(raw)
    except msgspec.MsgspecError:
        raise StateError("the entry of a number cannot be read") from None


def keep_entries_s(entries: Iterable[Entry], now: int, memory_s: int) -> int:
    """How long Redis has to keep some entries: the request memory, and two seconds more than an approval among them is valid."""
    last = max((entry.valid_until for entry in entries), default=0)
    return max(memory_s, (last - now) // SECOND + 3)


class Snapshot:
    """What one MGET said of a partition: its meta, and per number the raw state and entry."""

    __slots__ = ("_states", "meta")

    def __init__(self, meta: Meta | None, states: dict[str, tuple[bytes | None, bytes | None]]) -> None:
        self.meta = meta
        self._states = states

    def facts(self, number: str) -> NumberFacts:
        """The facts of a number.

        Raises:
            StateError: they cannot be read; the caller blocks.
        """
        raw = self._states[number][0]
        try:
            return NumberFacts() if raw is None else _unpack_facts(raw)
        except msgspec.MsgspecError:
            raise StateError("the state of a number cannot be read") from None

    def entries(self, number: str) -> list[Entry]:
        """The recent decisions about a number.

        Raises:
            StateError: they cannot be read; the caller must not decide a second time.
        """
        return decode_entries(self._states[number][1])


class FactSnapshot:
    """What one MGET said for a batch of facts: the meta, raw states by number, raw entries of the numbers that may be stopped."""

    __slots__ = ("_states", "meta", "raw_entries")

    def __init__(self, meta: Meta | None, states: dict[str, bytes | None], raw_entries: dict[str, bytes | None]) -> None:
        self.meta = meta
        self._states = states
        self.raw_entries = raw_entries

    def facts(self, number: str) -> NumberFacts:
        """The facts of a number.

        Raises:
            StateError: they cannot be read.
        """
        raw = self._states[number]
        try:
            return NumberFacts() if raw is None else _unpack_facts(raw)
        except msgspec.MsgspecError as error:
            raise StateError(f"the state of a number cannot be read: {error}") from None

    def entries(self, number: str) -> list[Entry]:
        """The recent decisions about a number that may be stopped.

        Raises:
            StateError: they cannot be read; the facts have to wait, because an approval may hide there.
        """
        return decode_entries(self.raw_entries[number])


class FactBatch(msgspec.Struct):
    """Facts of one partition, merged and ready to be written.

    ``changed`` holds the new states; ``compared`` the raw entries as they were read, which must still be there; ``entries`` those of
    them that change; ``recalls`` what has to be published then, kept under ``field`` until it is; ``turns`` how many were admitted at
    least; ``keep_s`` how long Redis keeps the entries; ``stopped_ms`` when the log took in the stops behind the recalls.
    """

    partition: int
    seen: Meta
    after: Meta
    turns: int
    field: bytes
    changed: dict[str, NumberFacts]
    compared: dict[str, bytes | None]
    entries: dict[str, list[Entry]]
    recalls: list[Journalled]
    keep_s: int
    stopped_ms: list[int]


class Admission(msgspec.Struct):
    """Decisions of one partition to be stored before they are published.

    ``journal`` is in order of input offset; ``entries`` holds, for each decided number, all of its decisions that are still remembered;
    ``turns`` is how many were admitted before, at least; ``keep_s`` is how long Redis keeps the entries.
    """

    partition: int
    seen: Meta
    turns: int
    journal: list[Journalled]
    entries: dict[str, list[Entry]]
    keep_s: int
