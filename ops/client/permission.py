"""The gate's answer to a dialler: a yes until an instant, or a no with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Reason(StrEnum):
    """Why a call may be dialled or not. Only ``APPROVED`` is a yes."""

    APPROVED = "approved"
    BLOCKED = "blocked"
    RECALLED = "recalled"
    EXPIRED = "expired"
    TOO_EARLY = "too-early"
    #: No decision of this request has been read.
    UNKNOWN = "unknown"
    #: One request_id was used for two numbers.
    CONFLICT = "conflict"
    #: The gate has not read up to the end of the topics within its bound: no broker, a lag, or it has just started.
    BEHIND = "behind"
    #: The guard's clock is ahead of this machine's by more than the tolerance.
    CLOCK = "clock"
    #: A record that may block this request could not be kept or read.
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether a call may be dialled now; true or false as it stands in an ``if``.

    Attributes:
        request_id: whose.
        reason: the reason as a word to compare.
        text: the reason as a sentence for a log. It holds no number.
        until: on a yes, its end by the guard's clock, exclusive. Ask again before you dial; do not plan by it.
        codes: on a refusal the codes of the wire contract (``E_OBJECTION``).
    """

    request_id: str
    reason: Reason
    text: str
    until: datetime | None = None
    codes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.reason is Reason.APPROVED
