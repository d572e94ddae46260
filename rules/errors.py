"""The error tree of ringfence.

```
RingfenceError
  InputError        a record cannot be judged             rejected-events, or an error at the offline door
  RulebookError     law data cannot answer
    RulebookInvalid   at load: refuse to start
    RulebookGap       no rule covers the day: S_STATE_UNAVAILABLE
  StateError        Redis cannot answer, or forgot        block, never approve
    Fenced            somebody else owns the partition    drop the batch, leave and join again
  DeliveryFailed    a record was not acknowledged         keep the offset, try again
  Stuck             no progress, servers answer       end; whoever supervises the worker starts it anew
  CannotStart       a server, port or topic is not usable exit code 3 with the reason
```

Messages name the field, the shape found and the remedy; never the value, because a number is personal data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class RingfenceError(Exception):
    """Root of everything that ringfence raises on purpose."""


class InputError(RingfenceError):
    """A record or a line that cannot be read as what it should be.

    Attributes:
        code: an error code of the wire contract (``json``, ``type``, ``missing``, ``format``, ``enum``, ...).
        field: dotted path from the record's root (``cli.number``); empty where the record as a whole is meant.
    """

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.code = code
        self.field = field
        self.message = message


class RulebookError(RingfenceError):
    """The rulebook cannot answer."""


class RulebookInvalid(RulebookError):
    """A rulebook file is not acceptable; nothing may start with it."""


class RulebookGap(RulebookError):
    """No regime covers the day of the call; the caller blocks."""


class StateError(RingfenceError):
    """The state of a number cannot be read or trusted; the caller blocks."""


class Fenced(StateError):
    """The partition has a newer owner; the batch is dropped."""


class DeliveryFailed(RingfenceError):
    """The broker did not acknowledge every record; nothing was committed.

    Attributes:
        undelivered: the records that it did not acknowledge; publishing them again is safe.
        refusals: how many of them by topic and reason, for the counts.
    """

    def __init__(self, message: str, undelivered: Sequence[Any] = (), refusals: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.undelivered = undelivered
        self.refusals = refusals or {}


class Stuck(RingfenceError):
    """Work makes no progress although the servers answer; the worker ends."""


class CannotStart(RingfenceError):
    """A server, port, topic or setting makes it impossible to start (exit code 3)."""
