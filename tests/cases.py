"""The worked cases, and a way to put many of them into one guard: each with a number and parties of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CASES = Path(__file__).with_name("cases.jsonl")

_PARTY_FIELDS = frozenset(
    {
        "party_id",
        "advertiser_id",
        "intermediary_id",
        "call_centre_id",
        "owner_id",
        "brand",
        "campaign_id",
        "event_id",
        "relationship_id",
    }
)
_PARTY_LISTS = frozenset({"party_ids", "published_by", "engages"})


def worked_cases() -> list[dict[str, Any]]:
    """Every line of cases.jsonl."""
    return [json.loads(line) for line in CASES.read_text().splitlines()]


def apart(line: dict[str, Any], position: int) -> dict[str, Any]:
    """The same line with ids and numbers that no other line has."""
    numbers: dict[str, str] = {}

    def number(text: str) -> str:
        # Keeps the country code (rule S-05) and makes the rest the line's own.
        return numbers.setdefault(text, f"{text[:3]}{len(numbers) + 1}{position:07d}")

    def renamed(name: str, value: Any) -> Any:
        if name in _PARTY_FIELDS and isinstance(value, str):
            return f"{value}~{position}"
        if name in _PARTY_LISTS and isinstance(value, list):
            return [f"{item}~{position}" for item in value]
        if name == "number" and isinstance(value, str):
            return number(value)
        if isinstance(value, dict):
            return {key: renamed(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [renamed("", item) for item in value]
        return value

    facts = [
        {key: (f"{item}~{position}" if key == "key" else renamed(key, item)) for key, item in fact.items()} for fact in line["facts"]
    ]
    request = renamed("", line["request"]) | {"request_id": f"{line['request']['request_id']}~{position}"}
    return {**line, "facts": facts, "request": request}
