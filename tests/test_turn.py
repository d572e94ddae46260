"""A turn over a large batch: it lets others work in between, and says for each decision what it was taken with."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest

import agents.turn
from agents.turn import Work, _Decided
from config.rulebook import load_rulebook
from rules.events import REQUEST_TOPIC, validate
from rules.instants import parse_instant
from rules.reference import Reference
from rules.requests import CallRequest
from streams.kept import Meta, Snapshot
from streams.partition import Partition
from tests.scene import numbers, request


async def test_a_large_batch_is_decided_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else has work gets on between two parts; what came in then counts for the next part, and as_of tells them apart."""
    monkeypatch.setattr(agents.turn, "_AT_ONCE", 2)
    references = count(7)
    guard = SimpleNamespace(
        clock=SimpleNamespace(now=lambda: parse_instant("2026-11-23T10:00:00Z")),
        refusal=None,
        as_of=lambda _meta: {"campaigns": next(references)},
        reference=Reference(),
        book=load_rulebook(),
        settings=SimpleNamespace(request_memory_s=300),
    )
    asked = [cast("CallRequest", validate(REQUEST_TOPIC, request(of))) for of in numbers(5)]
    work = Work(Partition(0), [], 0.0, requests=list(enumerate(asked)))
    made = _Decided(cast("Any", guard), work, Snapshot(Meta(1, 1, {}), {one.number: (None, None) for one in asked}))
    got_on = []

    async def somebody_else() -> None:
        while True:
            got_on.append(len(made.journal))
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody_else())
    await made.decide()
    other.cancel()
    assert [json.loads(item.record)["as_of"]["campaigns"] for item in made.journal] == [7, 7, 8, 8, 9]
    assert {2, 4} <= set(got_on)
    assert [item.offset for item in made.admission.journal] == [0, 1, 2, 3, 4]
    assert len(made.admission.entries) == 5
