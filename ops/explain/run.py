"""Explains a request of a running guard: finds its decision, reads what it rests on, and puts both together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from aiokafka.errors import KafkaError

from config.rulebook import load_rulebook
from config.settings import Settings
from ops.explain.explanation import Explanation, explain
from ops.explain.known import look_up
from ops.explain.places import Place
from ops.explain.search import Output, Search, Tell
from rules.errors import StateError
from rules.rulebook import Rulebook
from streams.log_reader import LogReader


async def explained(
    settings: Settings,
    request_id: str,
    *,
    number: str | None = None,
    at: Place | None = None,
    since_ms: int = 0,
    book: Rulebook | None = None,
    log: LogReader | None = None,
    tell: Tell = lambda _what, _records: None,
) -> Explanation | None:
    """Explain the newest decision of a request.

    Args:
        settings: of the guard.
        request_id: of the request.
        number: look in its partition only, and for requests of this number only.
        at: where a record of the request stands; nothing is searched then.
        since_ms: look at records from this log time on (unix milliseconds).
        book: the rulebook; that of the settings if none is given.
        log: connected, for who explains often; without it, connections are made for this time.
        tell: told what is read and how many records of it, every now and then.

    Returns:
        None if there is no such decision (there).

    Raises:
        StateError: the broker does not answer.
    """
    book = load_rulebook(overrides=settings.rulebook_overrides) if book is None else book
    async with _connected(settings) if log is None else nullcontext(log) as connected:
        search = Search(settings, connected, request_id, number, tell)
        outputs = await (search.at(at) if at is not None else search.newest(since_ms, time.time_ns() // 1_000_000))
        if not outputs:
            return None
        newest = max(outputs, key=lambda one: (one.record.log_time_ms, one.place))
        outputs = await _completed(search, outputs, newest, book.most_valid_s * 1000)
        known = await look_up(settings, connected, book, outputs, tell)
    case = known.case_of(newest.decision.number)
    return explain(newest.decision.request_id, case, known, book) if case is not None else None


async def _completed(search: Search, outputs: list[Output], newest: Output, valid_ms: int) -> list[Output]:
    """The outputs of the newest record's number, with the approval or the recalls that belong to it and were not met on the way."""
    beside = [one for one in await search.around(newest, valid_ms) if one.decision.approved or one.decision.kind == "recall"]
    found = {
        one.place: one
        for one in [*outputs, *beside]
        if one.decision.number == newest.decision.number and one.place.partition == newest.place.partition
    }
    return list(found.values())


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[LogReader]:
    log = LogReader(settings, "read_committed")
    try:
        try:
            await log.start()
        except (KafkaError, OSError) as error:
            raise StateError(f"no Kafka answers at {settings.kafka}: {error!r}") from None
        yield log
    finally:
        await log.stop()
