"""The gateway's OpenAPI 3.1 document, made from its operations and from the models that the guard reads with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from ops.contracts import CONTRACT_VERSION
from ops.gateway.operations import Operation
from rules import e164

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Error code of the contract, or an S_ code."},
        "field": {"type": "string", "description": "Path of the field that is meant."},
        "request_id": {"type": "string"},
    },
}
_PATHS = {"number": {"type": "string", "pattern": f"^{e164.PATTERN}$"}}
_MEANINGS = {
    401: "No key that is known.",
    403: "The key lacks the scope.",
    404: "There is none.",
    409: "The same request_id was asked before with other content.",
    413: "Too large.",
    422: "It cannot be read; code, field and message of the contract say why.",
    429: "Too many requests with this key; Retry-After says when to come back.",
    503: "Kafka, Redis or the guard did not answer in time. Never dial on this.",
}


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The document of a gateway.

    Args:
        operations: all that it serves.
        version: of the program.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ringfence gateway",
            "version": version,
            "summary": "May this number be called? One lawful decision a request, with its reasons.",
            "description": f"Records are those of the wire contract, version {CONTRACT_VERSION}. A blocked call is a decision and "
            "answers 200; whoever gets anything else than an approval must not dial.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "The secret of a key of RINGFENCE_API_KEYS."}
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PATHS.get(name, {"type": "string", "minLength": 1})}
        for name in re.findall(r"{(\w+)", operation.path)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": dict(schema), "description": about} for name, (schema, about) in operation.query.items()
    ]
    statuses = operation.problems if operation.scopes is None else (401, 403, 429, *operation.problems)
    made: dict[str, Any] = {
        "operationId": re.sub(r"[^a-z0-9]+", "-", f"{operation.method} {operation.path}".lower()).strip("-"),
        "summary": operation.summary,
        "security": [] if operation.scopes is None else [{"key": sorted(operation.scopes)}],
        "responses": {
            str(operation.answer): _answer(operation),
            **{str(status): _problem(status) for status in sorted(set(statuses))},
        },
    }
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {operation.body_media: {"schema": _inlined(operation.body)}}}
    return made


def _answer(operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(operation.answer).phrase}
    if operation.media is not None:
        answer["content"] = {operation.media: {"schema": _inlined(operation.content or {})}}
    return answer


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": _MEANINGS[status], "content": content}


def _inlined(schema: Mapping[str, Any], nested: Mapping[str, Any] | None = None) -> Any:
    """A schema with its own definitions in the places that refer to them; none of ours refers to itself."""
    nested = schema.get("$defs", {}) if nested is None else nested

    def walk(value: Any) -> Any:
        if isinstance(value, Mapping):
            if "$ref" in value:
                return walk({**nested[value["$ref"].rpartition("/")[2]], **{key: one for key, one in value.items() if key != "$ref"}})
            return {key: walk(one) for key, one in value.items() if key not in ("$defs", "$schema")}
        return [walk(one) for one in value] if isinstance(value, list) else value

    return walk(schema)
