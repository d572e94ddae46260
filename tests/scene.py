"""A small world in which calls are approved: one advertiser, its campaign and caller number, and consents that the caller may rest on.

Tests take one thing away from it, or break one thing, and look at what changes.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis as redis_client

from streams.partitioner import partition_of
from tests.harness import Client, Running, running_guard

Event = tuple[str, dict[str, Any]]

#: When the harness's clock stands: a Monday, 14:00 in Amsterdam.
NOW = "2026-11-23T13:00:00Z"
EARLIER = "2026-11-20T10:00:00Z"
CALLER_NUMBER = "+31201234567"

_ids = itertools.count(1)
_numbers = itertools.count(1)


def number(position: int) -> str:
    """One of a million mobile numbers."""
    return f"+3161{position:07d}"


def numbers(count: int, partition: int | None = None, partitions: int = 4) -> list[str]:
    """Numbers that no other test of this run has, of one partition if that is asked."""
    found = (one for one in map(number, _numbers) if partition is None or home(one, partitions) == partition)
    return list(itertools.islice(found, count))


def home(of: str, partitions: int) -> int:
    """The partition in which a number's records belong."""
    return partition_of(of.encode(), partitions)


def fresh(kind: str = "e") -> str:
    """An id that was not used before."""
    return f"{kind}-{next(_ids)}"


def party(party_id: str = "A", **fields: Any) -> Event:
    return "parties", {"party_id": party_id, "name": party_id, "legal_form": "private_company", "country": "NL", **fields}


def campaign(campaign_id: str = "c-1", **fields: Any) -> Event:
    return "campaigns", {"campaign_id": campaign_id, "advertiser_id": "A", "objection_offered": True, **fields}


def caller_number(**fields: Any) -> Event:
    entry = {"number": CALLER_NUMBER, "owner_id": "A", "callable_back": True, "tariff": "normal", "published_by": ["A"]}
    return "caller-numbers", {**entry, **fields}


REFERENCE = [party(), campaign(), caller_number()]


def consent(of: str, **fields: Any) -> Event:
    given = {
        "event_id": fresh(),
        "number": of,
        "at": EARLIER,
        "kind": "given",
        "party_ids": ["A"],
        "subjects": ["energy"],
        "channels": ["telephone"],
        "capture": "unticked_box",
        "evidence": {"uri": "https://example.org/1", "sha256": "00"},
        "person_ref": "p-1",
        "verified_by": "sms",
        "giver_age": 44,
    }
    return "consents", {**given, **fields}


def withdrawal(of: str, **fields: Any) -> Event:
    return "consents", {"event_id": fresh(), "number": of, "at": NOW, "kind": "withdrawn", **fields}


def objection(of: str, **fields: Any) -> Event:
    return "objections", {"event_id": fresh(), "number": of, "at": NOW, "advertiser_id": "A", **fields}


def outcome(of: str, result: Any, **fields: Any) -> Event:
    ended = {"event_id": fresh(), "number": of, "at": EARLIER, "advertiser_id": "A", "campaign_id": "c-1", "result": result}
    return "call-outcomes", {**ended, **fields}


def callee(of: str, **fields: Any) -> Event:
    user = {"event_id": fresh(), "number": of, "at": EARLIER, "legal_form": "natural_person", "person_ref": "p-1", "age": 44}
    return "callees", {**user, **fields}


def relationship(of: str, **fields: Any) -> Event:
    bought = {"event_id": fresh(), "relationship_id": fresh("r"), "number": of, "at": EARLIER, "advertiser_id": "A", "kind": "purchase"}
    return "relationships", {**bought, **fields}


def invitation(of: str, **fields: Any) -> Event:
    return "invitations", {"event_id": fresh(), "number": of, "at": EARLIER, **fields}


def release(of: str, **fields: Any) -> Event:
    freed = {"event_id": fresh(), "number": of, "at": NOW, "released_by": "operator", "reason": "repaired"}
    return "quarantine-releases", {**freed, **fields}


def request(of: str, **fields: Any) -> dict[str, Any]:
    asked = {
        "request_id": fresh("q"),
        "number": of,
        "dial_at": NOW,
        "advertiser_id": "A",
        "campaign_id": "c-1",
        "purpose": "commercial",
        "subject": "energy",
        "own_offer": True,
        "dialling_mode": "manual",
        "cli": {"number": CALLER_NUMBER, "withheld": False},
        "person_ref": "p-1",
    }
    return {**asked, **fields}


async def ask(client: Client, of: str, *, within_s: float = 20, **fields: Any) -> dict[str, Any]:
    """Put a request and wait for its decision."""
    asked = request(of, **fields)
    await client.put("call-requests", asked)
    return await client.decision(asked["request_id"], within_s)


@asynccontextmanager
async def running_scene(kafka: str, redis_url: str, **options: Any) -> AsyncIterator[Running]:
    """A running guard in which the advertiser and its campaign are on file; it leaves nothing behind in Redis.

    It waits long for facts, because a busy machine is not what is under test; who tests the bound sets it.
    """
    prefix = f"t-{secrets.token_hex(4)}."
    try:
        async with running_guard(kafka, redis_url, prefix, **{"barrier_timeout_s": 15.0, **options}) as guard:
            await guard.client.put_all(REFERENCE)
            yield guard
    finally:
        with redis_client.Redis.from_url(redis_url) as client:
            for key in client.scan_iter(match=f"{prefix}*", count=1000):
                client.unlink(key)
