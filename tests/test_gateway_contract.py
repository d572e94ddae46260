"""The gateway's OpenAPI document against the running gateway: Schemathesis sends what fits it and what does not."""

from __future__ import annotations

import asyncio
import sys

import pytest

from ops.gateway.api import openapi, operations
from tests.test_gateway import OPERATE, Served, gate, guarded

__all__ = ["gate", "guarded"]

#: A stream does not end, and Schemathesis does not write JSON lines; tests/test_gateway.py asks both.
_LEFT_OUT = ("/v1/decisions/stream", "/v1/call-requests/bulk")


@pytest.mark.broker
@pytest.mark.slow
async def test_the_gateway_keeps_to_its_own_document(gate: Served):
    """No answer that the document does not know, nothing broken accepted, nothing without a key, no 5xx."""
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{gate.server.url}/v1/openapi.json",
        "--header", f"Authorization: Bearer {OPERATE}",
        *(part for path in _LEFT_OUT for part in ("--exclude-path", path)),
        # JSON Schema counts 3.0 as an integer, the guard does not: tests/test_contracts.py holds the schemas against the models.
        "--exclude-checks", "positive_data_acceptance",
        "--seed", "1", "--max-examples", "5", "--no-color",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(300):
            out, _ = await run.communicate()
    finally:
        if run.returncode is None:
            run.kill()
    assert run.returncode == 0, out.decode()


def test_every_operation_says_who_may_use_it():
    """Only health is open; nothing that changes anything is open to every key."""
    for operation in operations():
        if operation.scopes is None:
            assert operation.path in ("/livez", "/readyz")
        elif not operation.scopes:
            assert (operation.method, operation.path) in {("GET", "/v1/openapi.json"), ("GET", "/v1/codes")}


def test_names_of_operations_are_used_once():
    """A client is generated from them."""
    names = [one["operationId"] for path in openapi()["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names)
