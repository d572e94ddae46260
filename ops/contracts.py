"""The wire contract for other programs: a JSON Schema a topic and an AsyncAPI document, made from what the guard reads and writes with.

The schemas are as strict as the guard where JSON Schema can say it. It cannot say that a key must be repeated in the record, nor that a
date must exist.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from pydantic.json_schema import GenerateJsonSchema

from config.settings import Settings
from ops.rejected import Report
from rules import e164
from rules.decision import Decision
from rules.events import MODELS, REFERENCE_KEYS, REQUEST_TOPIC
from streams.outputs import INPUT_OFFSET
from streams.topics import APPROVED, BLOCKED, REJECTED, STATES, TopicSpec, specs
from streams.trace_context import TRACEPARENT, TRACESTATE

#: Grows by a minor when an optional field is added; nothing else is ever changed.
CONTRACT_VERSION = "1.0.0"
_DIALECT = GenerateJsonSchema.schema_dialect
_SCHEMAS = "schemas"
_OUTPUTS = (APPROVED, BLOCKED, REJECTED)

_ABOUT = {
    REQUEST_TOPIC: "Questions: may this number be called for this party, then, about this?",
    "consents": "Consents that people gave or withdrew.",
    "objections": "People who do not want to be called again.",
    "relationships": "What ties a person to an organisation: purchases, contracts, donations and the like.",
    "invitations": "People who ask to be called.",
    "callees": "Who uses a number now.",
    "call-outcomes": "How calls ended.",
    "quarantine-releases": "An operator has repaired what suspended a number.",
    "parties": "Organisations that call or are called for.",
    "campaigns": "Calling campaigns.",
    "caller-numbers": "Numbers that callers show.",
    APPROVED: "Approvals. Dial no earlier than dial_at and before valid_until, and not if blocked-calls holds the request too.",
    BLOCKED: "Refusals with every reason, and recalls of approvals.",
    REJECTED: "Records that could not be read, with what is wrong and their bytes.",
}


class _Plain(GenerateJsonSchema):
    """Without a title a field, which would be its name in other letters."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def schemas() -> dict[str, dict[str, Any]]:
    """A JSON Schema (draft 2020-12) of the records of every topic that others write or read, by name without prefix."""
    made = {topic: model.model_json_schema(schema_generator=_Plain) for topic, model in MODELS.items()}
    made |= {APPROVED: _of_struct(Decision), BLOCKED: _of_struct(Decision), REJECTED: _of_struct(Report)}
    return {topic: {"$schema": _DIALECT, **schema, "title": topic, "description": _ABOUT[topic]} for topic, schema in made.items()}


def asyncapi(settings: Settings) -> dict[str, Any]:
    """The AsyncAPI 3 document of a guard: channels with their topics' settings, messages with their keys, and what it does with them.

    Payloads refer to the schemas in the folder ``schemas`` beside the document.
    """
    channels = [spec for spec in specs(settings) if spec.name != settings.topic(STATES)]
    names = {spec.name.removeprefix(settings.topic_prefix): spec for spec in channels}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ringfence",
            "version": CONTRACT_VERSION,
            "description": "A guard for outbound calls: every call request gets one lawful decision, with its reasons.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, spec, settings) for name, spec in names.items()},
        "operations": {_operation(name): _what_it_does(name) for name in names},
        "components": {"messages": {name: _message(name) for name in names}},
    }


def write(folder: Path, settings: Settings) -> list[Path]:
    """Write the document and the schemas.

    Returns: the files.

    Raises:
        OSError: the folder cannot be written.
    """
    files = {"asyncapi.json": asyncapi(settings), **{f"{_SCHEMAS}/{topic}.json": schema for topic, schema in schemas().items()}}
    (folder / _SCHEMAS).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in files]


def _of_struct(struct: type[msgspec.Struct]) -> dict[str, Any]:
    schema = msgspec.json.schema(struct)
    nested = schema["$defs"]
    itself: dict[str, Any] = nested.pop(struct.__name__)
    return itself | ({"$defs": nested} if nested else {})


def _channel(name: str, spec: TopicSpec, settings: Settings) -> dict[str, Any]:
    config = spec.config(settings)
    topic: dict[str, Any] = {"cleanup.policy": [config["cleanup.policy"]]}
    topic |= {key: int(config[key]) for key in ("retention.ms", "retention.bytes") if key in config}
    return {
        "address": spec.name,
        "title": name,
        "description": _ABOUT[name],
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "kafka": {"topic": spec.name, "partitions": spec.partitions, "topicConfiguration": topic, "bindingVersion": "0.5.0"}
        },
    }


def _message(name: str) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": name,
        "title": name,
        "contentType": "application/json",
        "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": {"$ref": f"{_SCHEMAS}/{name}.json"}},
        "bindings": {"kafka": {"key": _key(name), "bindingVersion": "0.5.0"}},
    }
    headers = _headers(name)
    if headers:
        message["headers"] = {"type": "object", "properties": headers}
    return message


def _headers(name: str) -> dict[str, Any]:
    """The headers that a program may read or write; the guard has more of its own."""
    if name not in {REQUEST_TOPIC, APPROVED, BLOCKED, REJECTED}:
        return {}
    offset = {INPUT_OFFSET: {"type": "string", "description": "Offset of the request in its partition of call-requests."}}
    context = {
        TRACEPARENT: {"type": "string", "description": "W3C trace context, version 00; that of the record that this one answers."},
        TRACESTATE: {"type": "string", "description": "The state that goes with it, at most 512 bytes."},
    }
    return (offset if name in {APPROVED, BLOCKED} else {}) | context


def _key(name: str) -> dict[str, Any]:
    if name == REJECTED:
        return {"type": ["string", "null"], "description": "The key of the original."}
    field = REFERENCE_KEYS.get(name, "number")
    told = {"type": "string", "description": f"The same text as the field {field}."}
    return told | ({"pattern": f"^{e164.PATTERN}$"} if field == "number" else {})


def _operation(name: str) -> str:
    return f"publish-{name}" if name in _OUTPUTS else f"read-{name}"


def _what_it_does(name: str) -> dict[str, Any]:
    return {
        "action": "send" if name in _OUTPUTS else "receive",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": _ABOUT[name],
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
    }
