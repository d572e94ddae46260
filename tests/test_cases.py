"""The worked cases, wherever the guard runs: one contract, two homes."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import pytest

from config.rulebook import load_rulebook
from ops.door import decide_lines
from tests.cases import apart, worked_cases
from tests.harness import running_guard

CASES = worked_cases()


def shown(decision: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """The part of a decision that a case speaks of."""
    return {name: decision[name] for name in expected}


@pytest.mark.parametrize("line", CASES, ids=lambda line: str(line["case"]))
def test_every_worked_case_comes_out_as_expected_at_the_offline_door(line: dict[str, Any]) -> None:
    """Decision, basis, reasons, warnings, and missing where it is given."""
    ((answer, is_decision),) = decide_lines(io.BytesIO(json.dumps(line).encode()), load_rulebook())
    assert is_decision
    assert shown(json.loads(answer), line["expect"]) == line["expect"]


@pytest.mark.broker
async def test_every_worked_case_comes_out_the_same_through_kafka_and_redis(kafka: str, redis_url: str, prefix: str) -> None:
    """All cases in one guard, each with a number and parties of its own, asked at its own instant."""
    lines = [apart(line, position) for position, line in enumerate(CASES)]
    async with running_guard(kafka, redis_url, prefix) as guard:
        for fact in itertools.chain.from_iterable(line["facts"] for line in lines):
            if fact["value"] is None:
                await guard.client.put_raw(fact["topic"], fact["key"].encode(), None)
            else:
                await guard.client.put_all([(fact["topic"], fact["value"])])
        different = {}
        for dial_at, group in itertools.groupby(
            sorted(lines, key=lambda line: line["request"]["dial_at"]), lambda line: line["request"]["dial_at"]
        ):
            asked = list(group)
            guard.clock.set(dial_at)
            await guard.client.put_all([("call-requests", line["request"]) for line in asked])
            for line in asked:
                decision = await guard.client.decision(line["request"]["request_id"])
                if shown(decision, line["expect"] | {"missing": decision["missing"]}) != line["expect"] | {
                    "missing": decision["missing"]
                }:
                    different[line["case"]] = decision["reasons"], line["expect"]
        assert different == {}
