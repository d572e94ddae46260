"""Approvals, refusals and recalls joined by request_id: pure, in whichever order they are read.

A refusal is never undone: not by an approval that is read later, nor by a repeat. So the order of the two topics does not matter. A
refusal is remembered until no approval of the same request can be valid any more; after that the request_id is a new request, as in
the wire contract. Where memory does not suffice for that, approvals are refused instead.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from ops.client.permission import Permission, Reason
from rules.instants import MINUTE, SECOND, format_instant, parse_instant

#: Of two decisions of one request the second is at most so much later (the guard's request memory); beyond, it is a new request.
REASKED = 300 * SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Record(msgspec.Struct, frozen=True):
    """What is read of a decision or recall."""

    request_id: str
    number: str
    decision: Literal["approved", "blocked"]
    kind: Literal["decision", "recall"]
    dial_at: str
    decided_at: str
    valid_until: str | None
    reasons: list[str]


class Between(NamedTuple):
    """The guard's time: not before ``early`` and not after ``late`` (microseconds since 1970)."""

    early: int
    late: int


class _Approved(NamedTuple):
    decided_at: int
    number: str
    dial_at: int
    valid_until: int


class _Refused(NamedTuple):
    decided_at: int
    reason: Reason
    codes: tuple[str, ...]


_TEXTS = {
    Reason.BLOCKED: "not approved",
    Reason.RECALLED: "the approval was taken back",
    Reason.CONFLICT: "the request_id was used for two numbers",
}


class Joined:
    """What is known of requests. Instants are microseconds since 1970 by the guard's clock."""

    def __init__(self, remember: int, most: int) -> None:
        """Nothing is known yet.

        Args:
            remember: how long a request is remembered after its last decision.
            most: requests that are remembered at once.

        Raises:
            ValueError: ``remember`` is too short for any approval, or ``most`` below 1.
        """
        if remember <= REASKED or most < 1:
            raise ValueError(f"want to remember more than {REASKED // SECOND} s, and at least one request")
        self._remember = remember
        self._longest = remember - REASKED
        self._most = most
        self._known: dict[str, _Approved | _Refused] = {}
        self._by_minute: dict[int, list[str]] = {}
        self._forgotten_to = 0
        # Approvals up to this decided_at may have a refusal that is not known here.
        self._uncertain_to = 0

    def __len__(self) -> int:
        return len(self._known)

    def read(self, record: Record, *, approves: bool, time: Between) -> None:
        """Take in a record; a repeat changes nothing.

        Args:
            record: what it says.
            approves: whether it stands on the topic of approvals. One that does not say so itself is a refusal all the same.
            time: now.

        Raises:
            ValueError: an instant in it is none.
        """
        decided_at = parse_instant(record.decided_at)
        if approves and record.decision == "approved" and record.kind == "decision" and record.valid_until is not None:
            self._put(record.request_id, self._approval(record, decided_at), time)
        else:
            reason = Reason.RECALLED if record.kind == "recall" else Reason.BLOCKED
            self._put(record.request_id, _Refused(decided_at, reason, tuple(record.reasons)), time)

    def lost(self, time: Between) -> None:
        """A record that may be a refusal could not be read: nobody knows of which request."""
        self._uncertain_to = max(self._uncertain_to, time.late + REASKED)

    def may_dial(self, request_id: str, time: Between) -> Permission:
        """Whether a request may be dialled."""
        known = self._known.get(request_id)
        if known is None:
            return Permission(request_id, Reason.UNKNOWN, "no decision was read")
        if isinstance(known, _Refused):
            return Permission(request_id, known.reason, ", ".join((_TEXTS[known.reason], *known.codes)), codes=known.codes)
        return self._in_window(request_id, known, time)

    def forget(self, past: int) -> None:
        """Drop what can no longer matter: its last decision is older than what is remembered.

        Args:
            past: an instant that the guard's clock has passed for certain.
        """
        last = (past - self._remember) // MINUTE
        if last <= self._forgotten_to:
            return
        self._forgotten_to = last
        for minute in [minute for minute in self._by_minute if minute < last]:
            for request_id in self._by_minute.pop(minute):
                decided_at = self._known[request_id].decided_at
                if decided_at // MINUTE < last:
                    del self._known[request_id]
                else:  # decided again since it was listed
                    self._list(request_id, decided_at)

    def _in_window(self, request_id: str, known: _Approved, time: Between) -> Permission:
        if known.valid_until - known.decided_at > self._longest:
            return Permission(request_id, Reason.UNCERTAIN, "approved for longer than refusals are remembered")
        if known.decided_at <= self._uncertain_to:
            return Permission(request_id, Reason.UNCERTAIN, "a refusal could not be kept or read; it may have been this request's")
        if time.late >= known.valid_until:
            return Permission(request_id, Reason.EXPIRED, f"was valid until {format_instant(known.valid_until)}")
        if time.early < known.dial_at:
            return Permission(request_id, Reason.TOO_EARLY, f"may not be dialled before {format_instant(known.dial_at)}")
        until = _EPOCH + timedelta(microseconds=known.valid_until)
        return Permission(request_id, Reason.APPROVED, f"approved until {format_instant(known.valid_until)}", until)

    def _approval(self, record: Record, decided_at: int) -> _Approved:
        assert record.valid_until is not None  # looked at before
        return _Approved(decided_at, record.number, parse_instant(record.dial_at), parse_instant(record.valid_until))

    def _put(self, request_id: str, new: _Approved | _Refused, time: Between) -> None:
        known = self._known.get(request_id)
        if known is not None:
            self._known[request_id] = _both(known, new)
            return
        if len(self._known) < self._most:
            self._known[request_id] = new
            self._list(request_id, new.decided_at)
        elif isinstance(new, _Refused):
            self._uncertain_to = max(self._uncertain_to, max(time.late, new.decided_at) + REASKED)

    def _list(self, request_id: str, decided_at: int) -> None:
        self._by_minute.setdefault(decided_at // MINUTE, []).append(request_id)


def _both(known: _Approved | _Refused, new: _Approved | _Refused) -> _Approved | _Refused:
    """What two records of a request come to, in either order: refused if one of them is, else the later approval."""
    last = max(known.decided_at, new.decided_at)
    if isinstance(known, _Refused) and isinstance(new, _Refused):
        return max(known, new, key=lambda one: one.decided_at)
    if isinstance(known, _Refused):
        return known._replace(decided_at=last)
    if isinstance(new, _Refused):
        return new._replace(decided_at=last)
    if known.number != new.number:
        return _Refused(last, Reason.CONFLICT, ())
    if known.decided_at != new.decided_at:
        return max(known, new, key=lambda one: one.decided_at)
    return known._replace(dial_at=max(known.dial_at, new.dial_at), valid_until=min(known.valid_until, new.valid_until))
