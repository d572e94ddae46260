"""Puts call requests on Kafka for diallers that have none, and waits for their decisions.

A decision comes from the guard's own output topics, like everybody else's: the gateway decides nothing. It belongs to a question if it
carries that question's input offset. A blocked record of the same request answers too, whatever offset it carries and whenever it is
read: blocked always wins.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

import structlog
from aiokafka import ConsumerRecord

from config.settings import Settings
from ops.gateway.problems import Problem, unreadable
from ops.gateway.publishing import Publishing, Unacknowledged, unacknowledged
from ops.rejected import Report
from ops.statistics import Seen
from rules.errors import InputError
from rules.events import REQUEST_TOPIC, parse_json, validate
from rules.requests import CallRequest, read_quickly
from streams.outputs import INPUT_OFFSET
from streams.publisher import Headers
from streams.timings import PROMPT_S, Timing

log = structlog.get_logger(__name__)

#: Questions that may wait for their decisions at once; with a guard that stands still this is what a gateway holds in memory.
WAITING_MAX = 10_000
_UNDECIDED = "S_STATE_UNAVAILABLE"


@dataclass(slots=True, eq=False)
class _Question:
    """A request that waits.

    ``place`` is where it lies (partition, offset), once Kafka has said so; ``approvals`` were read before that, by input offset;
    ``block`` is what blocks it, also where that comes after its approval and before its answer has gone out.
    """

    answer: asyncio.Future[bytes]
    place: tuple[int, int] | None = None
    block: bytes | None = None
    approvals: dict[int, bytes] = field(default_factory=dict)

    def approved(self, offset: int, record: bytes) -> None:
        if self.place is None:
            self.approvals[offset] = record
        elif self.place[1] == offset:
            self.settle(record)

    def lies_at(self, partition: int, offset: int) -> None:
        self.place = partition, offset
        if offset in self.approvals:
            self.settle(self.approvals[offset])

    def blocked(self, record: bytes) -> None:
        self.block = record
        self.settle(record)

    def settle(self, record: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(record)

    def fail(self, error: Problem | Unacknowledged) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Asking:
    """The questions of one gateway that wait for their decisions.

    ``took`` is how long decided questions waited, in seconds.
    """

    def __init__(self, settings: Settings, publishing: Publishing) -> None:
        self._wait_s = settings.gateway_wait_s
        self._publishing = publishing
        self._waiting: defaultdict[tuple[str, str], list[_Question]] = defaultdict(list)
        self._at: dict[tuple[int, int], _Question] = {}
        self.waiting = 0
        self.took = Timing(PROMPT_S)

    async def ask(self, raw: bytes, context: Headers = ()) -> bytes:
        """The decision about a call request.

        Args:
            raw: the record of the contract, as JSON.
            context: the trace context that goes with it.

        Returns:
            The record of approved-calls or blocked-calls.

        Raises:
            Problem: 422 it cannot be read; 409 the same request_id was asked with other content; 503 there was no decision in time, or
                too many wait. Whoever gets none of the two records must not dial.
        """
        request = _read(raw)
        if self.waiting >= WAITING_MAX:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{WAITING_MAX} requests wait already", reason="busy", retry_after_s=1,
                code=_UNDECIDED, request_id=request.request_id,
            )  # fmt: skip
        started = monotonic()
        loop = asyncio.get_running_loop()
        question = _Question(loop.create_future())
        key = request.number, request.request_id
        self._waiting[key].append(question)
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                sent = await self._publishing.send(REQUEST_TOPIC, request.number, raw, context)
                sent.add_done_callback(partial(self._acknowledged, question))
                decision = await question.answer
        except (TimeoutError, Unacknowledged):
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no decision within {self._wait_s:g} s: do not dial; the same request may be sent again",
                retry_after_s=1, code=_UNDECIDED, request_id=request.request_id,
            ) from None  # fmt: skip
        except Problem as problem:
            problem.members["request_id"] = request.request_id
            raise
        finally:
            self._forget(key, question)
        self.took.took(monotonic() - started)
        return question.block or decision

    def on_output(self, record: ConsumerRecord[bytes, bytes], seen: Seen | Report) -> None:
        """Take in a record of an output topic, repeats included."""
        if isinstance(seen, Report):
            question = self._at.get((seen.partition, seen.offset)) if seen.topic == REQUEST_TOPIC else None
            if question is not None:
                error = seen.error
                status = HTTPStatus.CONFLICT if error.code == "conflict" else HTTPStatus.UNPROCESSABLE_ENTITY
                question.fail(Problem(status, error.message, code=error.code, field=error.field))
            return
        questions = self._waiting.get((seen.number, seen.request_id))
        if not questions:
            return
        raw = record.value or b""
        for question in questions:
            if seen.decision == "approved":
                question.approved(_input_offset(record), raw)
            else:
                question.blocked(raw)

    def _acknowledged(self, question: _Question, sent: asyncio.Future[Any]) -> None:
        """Kafka has a request, or has not; asks itself whether somebody still waits for it."""
        error = asyncio.CancelledError() if sent.cancelled() else sent.exception()
        if question.answer.done():
            return
        if error is not None:
            question.fail(unacknowledged(error))
            return
        record = sent.result()
        self._at[record.partition, record.offset] = question
        question.lies_at(record.partition, record.offset)

    def _forget(self, key: tuple[str, str], question: _Question) -> None:
        self.waiting -= 1
        self._waiting[key].remove(question)
        if not self._waiting[key]:
            del self._waiting[key]
        if question.place is not None:
            del self._at[question.place]
        if question.answer.done() and not question.answer.cancelled():
            question.answer.exception()  # a failure that came too late for anybody to read


def _read(raw: bytes) -> CallRequest:
    """The request in a body, read as the guard will read it.

    Raises:
        Problem: 422, with the contract's code and field.
    """
    request = read_quickly(raw)
    if request is not None:
        return request
    try:
        value = parse_json(raw)
    except InputError as error:
        raise unreadable(error) from None
    request_id = value.get("request_id") if isinstance(value, dict) else None
    try:
        return cast("CallRequest", validate(REQUEST_TOPIC, value))
    except InputError as error:
        raise unreadable(error, request_id if isinstance(request_id, str) else None) from None


def _input_offset(record: Any) -> int:  # aiokafka's record
    header = dict(record.headers).get(INPUT_OFFSET, b"")
    return int(header) if header.isdigit() else -1
