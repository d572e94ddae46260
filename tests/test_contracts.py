"""The contract for other programs: it says what the guard does, and what is kept in docs/ is what the code gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from config.rulebook import load_rulebook
from config.settings import Settings
from ops.contracts import asyncapi, schemas, write
from ops.door import decide_lines
from rules.errors import InputError
from rules.events import FACT_MODELS, MODELS, REFERENCE_MODELS, REQUEST_TOPIC, validate
from streams.topics import APPROVED, BLOCKED, REJECTED
from tests.cases import CASES, worked_cases

KEPT = Path(__file__).parent.parent / "docs" / "contracts"
#: What is put into every field in turn. No number with a fraction: JSON Schema takes 7.0 for a whole one, the guard does not.
ODD: tuple[Any, ...] = (
    None, 7, -1, True, "", "x" * 4097, "2026-11-23", "2026-11-23T13:00:00Z", "2026-11-23T13:00:00", "+31612345678", "0612345678", "NL",
    "XX", [], ["x"], [7], {}, {"uri": "u"}, {"uri": 7},
)  # fmt: skip


@cache
def validator(topic: str) -> Draft202012Validator:
    """Of the records of a topic."""
    return Draft202012Validator(schemas()[topic])


#: No case has one.
RELEASE = {"event_id": "r-1", "number": "+31612345678", "at": "2026-11-23T13:00:00Z", "released_by": "ops", "reason": "repaired"}


def written() -> dict[str, list[dict[str, Any]]]:
    """The records of the worked cases, by topic."""
    found: dict[str, list[dict[str, Any]]] = {topic: [] for topic in MODELS} | {"quarantine-releases": [RELEASE]}
    for line in worked_cases():
        found[REQUEST_TOPIC].append(line["request"])
        for fact in line["facts"]:
            if fact["value"] is not None:
                found[fact["topic"]].append(fact["value"])
    return found


def altered(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A record with one thing changed, again and again: every field left out, and everything odd in every field."""
    for name in value:
        yield {key: one for key, one in value.items() if key != name}
        for odd in ODD:
            yield value | {name: odd}


def taken(topic: str, value: dict[str, Any]) -> bool:
    """Whether the guard reads a record."""
    try:
        validate(topic, value)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("topic", MODELS)
def test_a_schema_takes_what_the_guard_takes_and_nothing_else(topic: str) -> None:
    """Records of the cases, and each with one field missing or wrong."""
    accepts = validator(topic).is_valid
    records = {tuple(sorted(value)): value for value in written()[topic]}  # one of every set of fields
    compared = 0
    for value in written()[topic]:
        assert taken(topic, value)
        assert accepts(value)
    for value in records.values():
        for one in altered(value):
            assert accepts(one) == taken(topic, one), one
            compared += 1
    assert compared > 20


def test_every_decision_about_the_cases_is_of_its_schema() -> None:
    """Approvals and refusals."""
    seen = set()
    with CASES.open("rb") as lines:
        for answer, is_decision in decide_lines(lines, load_rulebook()):
            if is_decision:
                decision = {name: value for name, value in json.loads(answer).items() if name != "case"}
                topic = APPROVED if decision["decision"] == "approved" else BLOCKED
                validator(topic).validate(decision)
                seen.add(topic)
    assert seen == {APPROVED, BLOCKED}


def test_what_is_kept_is_what_the_code_gives(tmp_path: Path) -> None:
    """Otherwise: ringfence contracts docs/contracts."""
    files = {path.relative_to(tmp_path): path.read_text() for path in write(tmp_path, Settings())}
    kept = {path.relative_to(KEPT): path.read_text() for path in KEPT.rglob("*.json")}
    assert kept == files


def test_the_document_names_every_topic_and_leads_to_its_schema() -> None:
    """Channels, operations and messages hang together, and every payload is a file beside the document."""
    document = asyncapi(Settings(topic_prefix="acme.", partitions=12))
    names = {*MODELS, APPROVED, BLOCKED, REJECTED}
    assert document["channels"].keys() == document["components"]["messages"].keys() == names
    assert {channel["address"] for channel in document["channels"].values()} == {f"acme.{name}" for name in names}
    for refers_to in _references(document):
        if refers_to.startswith("#/"):
            here = document
            for step in refers_to[2:].split("/"):
                here = here[step]
        else:
            assert (KEPT / refers_to).exists()
    does = {one["channel"]["$ref"].rpartition("/")[2]: one["action"] for one in document["operations"].values()}
    assert does == {name: "send" if name in {APPROVED, BLOCKED, REJECTED} else "receive" for name in names}


def test_the_document_says_how_topics_are_keyed_cut_and_kept() -> None:
    """Facts for ever in equal partitions, references compacted in one."""
    channels = asyncapi(Settings(partitions=12))["channels"]
    for name in FACT_MODELS:
        kafka = channels[name]["bindings"]["kafka"]
        assert (kafka["partitions"], kafka["topicConfiguration"]["retention.ms"]) == (12, -1)
    for name in REFERENCE_MODELS:
        kafka = channels[name]["bindings"]["kafka"]
        assert (kafka["partitions"], kafka["topicConfiguration"]["cleanup.policy"]) == (1, ["compact"])


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
