# ruff: noqa: INP001, T201  # a script that stands alone and prints
"""The smallest dialler that reads Kafka: asks for each call, and dials if it may.

    python dialler.py calls.jsonl        # one call request of the wire contract a line

Where Kafka is, the ``RINGFENCE_`` variables say: ``RINGFENCE_KAFKA``, ``RINGFENCE_TOPIC_PREFIX`` and so on.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from ops.client import DialGate


def dial(request: dict[str, Any]) -> None:
    """Here your dialler calls ``request["number"]``."""
    print(f"{request['request_id']}: dialled")


async def main(calls: list[dict[str, Any]]) -> None:
    """Ask for the calls one after the other."""
    async with DialGate() as gate:
        if not await gate.ready():
            sys.exit("the gate does not catch up: dial nothing")
        for request in calls:
            answer = await gate.ask(request)
            if not answer:
                print(f"{request['request_id']}: not dialled, {answer.permission.text}")
                continue
            # Seconds may pass here, until an agent is free. So the last word is asked for right before dialling.
            permission = await gate.confirm(request["request_id"])
            if permission:
                dial(request)
            else:
                print(f"{request['request_id']}: not dialled, {permission.text}")


asyncio.run(main([json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]))
