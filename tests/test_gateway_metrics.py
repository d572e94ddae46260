"""What a gateway shows to Prometheus: every family moves with what it counts, and nothing in it tells of a person or a key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ops.gateway.api import operations
from ops.gateway.metrics import COUNTERS, GAUGES, HISTOGRAMS, REFUSALS, GatewayCollector
from tests.scene import numbers, request, running_scene
from tests.test_gateway import DIAL, KEYS, Served, served

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
async def gate(kafka: str, redis_url: str) -> AsyncIterator[Served]:
    """A gateway of its own, so that nobody else's requests are counted."""
    async with running_scene(kafka, redis_url, partitions=1) as guard, served(guard) as gate:
        yield gate


def scraped(gate: Served) -> str:
    """What a scrape shows."""
    registry = CollectorRegistry()
    registry.register(GatewayCollector(gate.server.gateway))
    return generate_latest(registry).decode()


async def test_a_gateway_shows_what_it_did_and_of_nobody(gate: Served) -> None:
    """Answers and refusals by route, status and reason; a path with a number in it is shown as its route."""
    (of,) = numbers(1)
    asked = request(of)
    assert (await gate.post("/v1/call-requests", asked)).status_code == 200
    assert (await gate.post("/v1/call-requests", asked, key="nobodys")).status_code == 401
    assert (await gate.post("/v1/objections", {"number": of}, key=DIAL)).status_code == 403
    assert (await gate.get(f"/v1/numbers/{of}")).status_code == 200
    assert (await gate.post("/v1/call-requests", asked | {"number": f"{of}x"})).status_code == 422
    text = scraped(gate)
    shown = {family.name: family for family in text_string_to_metric_families(text)}
    kinds = {"counter": COUNTERS, "gauge": GAUGES, "histogram": HISTOGRAMS}
    assert {name: family.type for name, family in shown.items()} == {
        name.removesuffix("_total"): kind for kind, families in kinds.items() for name in families
    }

    def counts(name: str, *labels: str) -> dict[tuple[str, ...], float]:
        samples = (one for one in shown[name].samples if one.name == f"{name}_total")
        return {tuple(one.labels[label] for label in labels): one.value for one in samples}

    assert counts("ringfence_gateway_responses", "route", "status") == {
        ("/v1/call-requests", "200"): 1,
        ("/v1/call-requests", "401"): 1,
        ("/v1/call-requests", "422"): 1,
        ("/v1/objections", "403"): 1,
        ("/v1/numbers/{number}", "200"): 1,
    }
    assert counts("ringfence_gateway_refused", "reason") == {(reason,): reason in ("key", "scope") for reason in REFUSALS}
    assert next(one.value for one in shown["ringfence_gateway_answer_seconds"].samples if one.name.endswith("_count")) == 1
    people = (of[1:], asked["request_id"], "p-1", *(word for key in KEYS.split("; ") for word in (key.split()[0], key.split()[2])))
    assert [one for one in people if one in text] == []
    routes = {operation.path for operation in operations()}
    labels = [one.labels.items() for family in shown.values() for one in family.samples]
    values = {value for items in labels for name, value in items if name not in ("le", "status")}
    assert values <= routes | set(REFUSALS)
