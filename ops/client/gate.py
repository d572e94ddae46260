"""The dial gate: what a dialler asks before each call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from config.clock import Clock
from config.settings import Settings
from ops.client.asking import Asking
from ops.client.currency import Currency
from ops.client.guard_time import GuardTime
from ops.client.joined import Joined
from ops.client.keeper import Keeper
from ops.client.permission import Permission, Reason
from ops.client.reader import OutputReader
from rules.errors import DeliveryFailed
from rules.instants import SECOND

#: Log times and this machine's clock may differ; what is read too much at the start does no harm.
_BACK_MARGIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request; true or false as its permission.

    Attributes:
        permission: whether it may be dialled as of now.
        decision: the decision record of the wire contract; None if there was no answer in time.
    """

    permission: Permission
    decision: dict[str, Any] | None

    def __bool__(self) -> bool:
        return bool(self.permission)


class DialGate:
    """Asks the guard and says whether a call may be dialled. Use as an asynchronous context manager.

    ```
    async with DialGate(kafka="kafka-1:9092,kafka-2:9092") as gate:
        await gate.ask(request)
        ...
        if gate.may_dial(request["request_id"]):
            dial(request["number"])
    ```

    Whatever is in doubt is a no: nothing read, a lag, a broker that is away, clocks that disagree, memory that does not suffice.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        behind_s: float = 1.0,
        remember_s: float = 1500.0,
        most: int = 1_000_000,
        mine: str = "",
        **plain: Any,
    ) -> None:
        """Nothing is connected yet.

        Args:
            settings: where Kafka is, the prefix of the topics, security, ``clock_tolerance_s``; without it the ``RINGFENCE_``
                variables.
            behind_s: an answer rests on everything that Kafka had acknowledged at most so long ago; what is older was not dialled
                past. When that cannot be shown the answer is no.
            remember_s: how long a request is remembered after its last decision. An approval that is valid for longer than this less
                300 s is refused.
            most: requests remembered at once, some 0.4 KB each. Beyond it approvals are refused.
            mine: what your request_ids begin with: others are read and forgotten.
            **plain: fields of the settings instead of ``settings``: ``kafka="host:9092"``, ``topic_prefix=...``,
                ``kafka_security="SASL_SSL"``, ``kafka_sasl_username=...`` and so on.

        Raises:
            TypeError: a plain argument is no setting, or both forms are given.
            ValueError: a bound makes no sense.
        """
        if unknown := plain.keys() - Settings.model_fields.keys():
            raise TypeError(f"DialGate has no argument {min(unknown)}")
        if settings is not None and plain:
            raise TypeError("give settings or plain arguments, not both")
        self._settings = settings or Settings(**plain)
        self._mine = mine
        self._back_s = remember_s + _BACK_MARGIN_S
        joined = Joined(round(remember_s * SECOND), most)
        tolerance = GuardTime(round(self._settings.clock_tolerance_s * SECOND))
        self._keeper = Keeper(joined, tolerance, Currency(behind_s), mine)
        self._asking = Asking(self._settings)
        self._reader = OutputReader(self._settings, self._keeper, Clock.from_settings(self._settings), self._asking.read)

    async def __aenter__(self) -> Self:
        """Connect and begin to read; answers are no until :meth:`ready`.

        Raises:
            rules.errors.CannotStart: Kafka does not answer, or lacks the topics.
        """
        await self._asking.start()
        try:
            await self._reader.start(self._back_s)
        except BaseException:
            await self._asking.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()
        await self._asking.stop()

    def __len__(self) -> int:
        """How many requests are remembered."""
        return len(self._keeper)

    async def ready(self, within_s: float = 30.0) -> bool:
        """Wait until everything is read that was there when this was called. Returns whether it came to that in time."""
        return await self._reader.reaches(time.monotonic(), within_s)

    async def ask(self, request: Mapping[str, Any], within_s: float = 5.0) -> Answer:
        """Publish a request and wait for its answer.

        Without one in time the answer is no. Ask again with the very same request: a request_id is decided once.

        Args:
            request: a call request of the wire contract.
            within_s: how long to wait.

        Raises:
            rules.errors.InputError: the request is none; it was not published.
            ValueError: its request_id does not begin with ``mine``.
        """
        request_id = str(request.get("request_id"))
        if not request_id.startswith(self._mine):
            raise ValueError(f"the request_id does not begin with {self._mine!r}")
        try:
            async with asyncio.timeout(within_s):
                decision = await self._asking.ask(request)
        except TimeoutError:
            return Answer(Permission(request_id, Reason.UNKNOWN, f"no answer within {within_s:g} s"), None)
        except DeliveryFailed as error:
            return Answer(Permission(request_id, Reason.UNKNOWN, str(error)), None)
        return Answer(self.may_dial(request_id), decision)

    def may_dial(self, request_id: str, now: datetime | None = None) -> Permission:
        """Whether a request may be dialled now. It waits for nothing: ask it right before dialling.

        Args:
            request_id: of a request that was asked, by this gate or by anybody.
            now: another instant to judge at, with an offset; by default this machine's clock.
        """
        clocks = self._reader.now()
        if now is not None:
            clocks = clocks._replace(instant=round(now.timestamp() * SECOND))
        return self._keeper.may_dial(request_id, clocks)

    async def confirm(self, request_id: str, within_s: float = 1.0) -> Permission:
        """As :meth:`may_dial`, but first read all that Kafka had acknowledged when this was called: one round trip more.

        A recall that was acknowledged before is never dialled past, not even within ``behind_s``.
        """
        if await self._reader.reaches(time.monotonic(), within_s):
            return self.may_dial(request_id)
        return Permission(request_id, Reason.BEHIND, f"the topics could not be read up to their ends within {within_s:g} s")
