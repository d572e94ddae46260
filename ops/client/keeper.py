"""The whole of the gate's judgement without any I/O: what was read, as of when, and by which clock."""

from __future__ import annotations

import msgspec

from ops.client.currency import Currency
from ops.client.guard_time import GuardTime, Now
from ops.client.joined import Joined, Record
from ops.client.permission import Permission, Reason
from rules.instants import parse_instant

_decode = msgspec.json.Decoder(Record).decode


class Keeper:
    """Takes in the records of the output topics and answers ``may_dial``. Any doubt is a no."""

    def __init__(self, joined: Joined, time: GuardTime, currency: Currency, mine: str = "") -> None:
        """Nothing is read yet.

        Args:
            joined: what is known of requests.
            time: of the guard's clock.
            currency: of the reader.
            mine: what the request_ids begin with that matter here; the others are not kept.
        """
        self._joined = joined
        self._time = time
        self._mine = mine
        self.currency = currency

    def __len__(self) -> int:
        return len(self._joined)

    def read(self, value: bytes | None, *, approves: bool, now: Now) -> str | None:
        """Take in a record.

        Args:
            value: its bytes.
            approves: whether it stands on the topic of approvals.
            now: the clocks.

        Returns: its request_id; None if it cannot be read.
        """
        try:
            record = _decode(value or b"")
            self._time.heard(parse_instant(record.decided_at), now)
            if record.request_id.startswith(self._mine):
                self._joined.read(record, approves=approves, time=self._time.between(now))
        except (msgspec.DecodeError, ValueError):
            # An approval that cannot be read is none. A refusal may be anybody's.
            if not approves:
                self._joined.lost(self._time.between(now))
            return None
        return record.request_id

    def may_dial(self, request_id: str, now: Now) -> Permission:
        """Whether a request may be dialled now. It asks nobody and waits for nothing."""
        if not self.currency.is_current(now.monotonic_s):
            return Permission(request_id, Reason.BEHIND, self._behind(now))
        if self._time.is_ahead(now):
            return Permission(request_id, Reason.CLOCK, "the guard's clock is ahead of this machine's by more than the tolerance")
        return self._joined.may_dial(request_id, self._time.between(now))

    def forget(self, now: Now) -> None:
        """Drop what can no longer matter."""
        self._joined.forget(self._time.past(now))

    def _behind(self, now: Now) -> str:
        as_of_s = self.currency.as_of_s
        if as_of_s is None:
            return "the topics have not been read up to their ends since the start"
        return f"the topics were last known to be read up to their ends as of {now.monotonic_s - as_of_s:.1f} s ago"
