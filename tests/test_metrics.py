"""What a worker shows to Prometheus: every family moves with what it counts, and nothing in it tells of a person."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from time import monotonic

import pytest
import redis as redis_client
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from config.settings import Settings
from ops.exposition import MetricsServer
from ops.metrics import COUNTERS, GAUGES, HISTOGRAMS
from ops.readiness import CODES
from rules.codes import ALL_CODES
from rules.errors import CannotStart
from rules.events import ERROR_CODES
from streams.kept import Meta
from streams.lag import LagWatch, Log
from streams.partition import Partition
from streams.timings import Timing, Timings
from tests.harness import Running, encode, guard_settings, running_worker
from tests.scene import ask, consent, home, numbers, objection, request, running_scene
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parent.parent
ANY_PORT = "127.0.0.1:0"


class Scrape:
    """What one scrape showed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, sample: str, **labels: str) -> float:
        """The value of a sample; 0 while there is none."""
        samples = (one for family in self.families.values() for one in family.samples)
        return next((one.value for one in samples if one.name == sample and one.labels == labels), 0.0)


async def scraped(guard: Running) -> Scrape:
    """Ask the worker over HTTP."""
    assert guard.worker.metrics is not None
    url = f"http://127.0.0.1:{guard.worker.metrics.port}/metrics"

    def get() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    return Scrape(await asyncio.to_thread(get))


async def shows(guard: Running, wanted: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape that shows what is wanted."""
    found: list[Scrape] = []

    async def seen() -> bool:
        found.append(await scraped(guard))
        return wanted(found[-1])

    await wait_for(seen, within_s=20)
    return found[-1]


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """A guard of one partition that writes checkpoints often; tests look at what a figure rises by."""
    async with running_scene(kafka, redis_url, partitions=1, checkpoint_s=0.3, metrics=ANY_PORT) as running:
        yield running


# --- without a server -------------------------------------------------------------------------------------------------------------


def test_a_duration_is_counted_where_prometheus_looks_for_it() -> None:
    """An edge belongs to the bucket below it; buckets are told cumulated; clocks that differ give no negative sum."""
    timing = Timing((0.1, 1.0))
    for seconds in (-3.0, 0.1, 0.5, 7.0):
        timing.took(seconds)
    timing.took(0.5, times=3)
    assert timing.buckets() == [(0.1, 2), (1.0, 6), (math.inf, 7)]
    assert timing.sum_s == pytest.approx(9.1)


def test_requests_that_came_together_are_counted_each() -> None:
    """By the log's time of each, in milliseconds; a broker whose clock is ahead gives no negative duration."""
    timings, now_ms = Timings(), int(time.time() * 1000)
    timings.answered([now_ms - 300, now_ms - 300, now_ms - 3000, now_ms + 5000])
    assert timings.answer.count == 4
    assert timings.answer.sum_s == pytest.approx(3.6, abs=0.2)
    assert dict(timings.answer.buckets())[0.2] == 1


def test_the_lag_of_a_topic_is_that_of_all_its_partitions() -> None:
    """Records are added up, seconds are those of the partition that waits longest."""
    watch = LagWatch(Settings(), None, None, lambda _partition: 0)
    watch._reference = {}
    watch._logs = {0: [log := Log("objections", 0)], 1: [other := Log("objections", 1)]}
    now = monotonic()
    for one, end, since_s in ((log, 5, 9.0), (other, 3, 2.0)):
        one.look(0, end, end, now - since_s, 0.0)
        one.look(0, end, end, now, 0.0)
    assert watch.records == {"objections": 8}
    assert watch.seconds["objections"] == pytest.approx(9.0, abs=0.5)
    log.look(5, 5, 5, now, 0.0)
    assert watch.records == {"objections": 3}
    assert watch.seconds["objections"] == pytest.approx(2.0, abs=0.5)


def test_every_code_of_a_rejection_is_shown_from_the_start() -> None:
    """Those that the contract lists, but for the one that belongs to the offline door."""
    section = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8").split("| error.code | meaning |")[1].split("\n\n")[0]
    assert {*ERROR_CODES, "unknown_topic"} == set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_the_line_of_the_minute_tells_of_that_minute() -> None:
    """Mean and longest since the last line; what did not happen is not told."""
    timings = Timings()
    timings.barrier.took(0.2)
    timings.barrier.took(0.4)
    timings.turn.took(9.0)
    assert dict(timings.lately()) == {"barrier_mean_s": 0.3, "barrier_max_s": 0.4}
    timings.barrier.took(0.1)
    timings.recall.took(0.05)
    assert dict(timings.lately()) == {"barrier_mean_s": 0.1, "barrier_max_s": 0.1, "recall_mean_s": 0.05, "recall_max_s": 0.05}
    assert dict(timings.lately()) == {}


def test_every_code_of_a_reason_has_its_gauge() -> None:
    """A code that is missing in CODES would appear when it first holds, and no alarm on its rise would go off."""
    given = set()
    for path in (ROOT / "ops" / "readiness.py", ROOT / "streams" / "redis_client.py"):
        text = path.read_text(encoding="utf-8")
        given |= set(re.findall(r'Reason\(\s*"([a-z-]+)"', text)) | set(re.findall(r'"(redis-[a-z]+)"', text))
    assert given - {"stopping"} == set(CODES)


@pytest.mark.parametrize("address", ["", "9100", ":", "localhost", "a b:1", "localhost:port"])
def test_an_address_is_host_and_port(address: str) -> None:
    """The setting is refused before anything starts."""
    with pytest.raises(ValidationError, match="metrics"):
        Settings(metrics=address)


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "no-such-host.invalid:9100"])
def test_an_address_that_nobody_can_listen_at_is_named(address: str) -> None:
    """The message names the variable and the address."""
    with pytest.raises(CannotStart, match=f"RINGFENCE_METRICS: cannot listen at {address}"):
        MetricsServer(address, [])


# --- a running guard --------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
async def test_every_family_is_shown_and_no_other(guard: Running) -> None:
    """Name and kind as the tables in ops/metrics.py say."""
    shown = (await scraped(guard)).families
    kinds = {"counter": COUNTERS, "gauge": GAUGES, "histogram": HISTOGRAMS}
    expected = {name.removesuffix("_total"): kind for kind, families in kinds.items() for name in families}
    assert {name: family.type for name, family in shown.items()} == expected
    assert {len(shown[name].samples) > 0 for name in GAUGES} == {True}


@pytest.mark.broker
async def test_decisions_are_counted_with_what_they_rest_on_and_what_they_cost(guard: Running) -> None:
    """An approval, a block and a repeat; each turn waited at the barrier and came to its end."""
    before = await scraped(guard)
    asked_for, unknown = numbers(2)
    await guard.client.put_all([consent(asked_for)])
    asked = request(asked_for)
    await guard.client.put("call-requests", asked)
    await guard.client.decision(asked["request_id"])
    assert (await ask(guard.client, unknown))["reasons"] == ["E_NO_BASIS"]
    await guard.client.put("call-requests", asked)
    await guard.client.decisions_of(asked["request_id"], 2)
    await shows(guard, lambda after: after.value("ringfence_turn_seconds_count") - before.value("ringfence_turn_seconds_count") == 3)
    after = await scraped(guard)

    def rise(sample: str, **labels: str) -> float:
        return after.value(sample, **labels) - before.value(sample, **labels)

    assert rise("ringfence_decisions_total", outcome="approved") == 1
    assert rise("ringfence_decisions_total", outcome="blocked") == 1
    assert rise("ringfence_bases_total", code="OK_CONSENT") == 1
    assert rise("ringfence_reasons_total", code="E_NO_BASIS") == 1
    assert rise("ringfence_repeats_total") == 1
    assert rise("ringfence_facts_total", topic="consents") == 1
    assert rise("ringfence_barrier_wait_seconds_count") == 3
    assert 0 < rise("ringfence_barrier_wait_seconds_sum") < rise("ringfence_turn_seconds_sum")
    assert rise("ringfence_answer_seconds_count") == 3


@pytest.mark.broker
async def test_a_barrier_that_is_not_reached_counts_with_all_of_its_wait(
    kafka: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that are blocked as stale are what the barrier costs most. The lag is shown as it was last seen."""
    async with running_scene(kafka, redis_url, partitions=1, barrier_timeout_s=0.4, metrics=ANY_PORT) as guard:
        go_on, store = asyncio.Event(), guard.worker.guard.store
        write = store.write_facts

        async def held(batch: object) -> object:
            await go_on.wait()
            return await write(batch)

        monkeypatch.setattr(store, "write_facts", held)
        before = await scraped(guard)
        (of,) = numbers(1)
        await guard.client.put_all([consent(of)])
        assert (await ask(guard.client, of))["reasons"] == ["S_STATE_STALE"]
        after = await shows(
            guard,
            lambda seen: (
                seen.value("ringfence_lag_records", topic="consents") == 1
                and seen.value("ringfence_lag_seconds", topic="consents") > 0.5
            ),
        )
        assert after.value("ringfence_barrier_wait_seconds_sum") - before.value("ringfence_barrier_wait_seconds_sum") > 0.4
        assert after.value("ringfence_reasons_total", code="S_STATE_STALE") == 1
        go_on.set()
        await shows(guard, lambda seen: seen.value("ringfence_lag_records", topic="consents") == 0)
        await shows(guard, lambda seen: seen.value("ringfence_lag_seconds", topic="consents") == 0)


@pytest.mark.broker
async def test_a_recall_is_counted_with_its_latency(guard: Running) -> None:
    """From the broker's time of the objection to the acknowledged recall."""
    before = await scraped(guard)
    (of,) = numbers(1)
    await guard.client.put_all([consent(of)])
    asked = await ask(guard.client, of)
    assert asked["decision"] == "approved"
    await guard.client.put_all([objection(of)])
    await guard.client.decisions_of(asked["request_id"], 2)
    after = await shows(guard, lambda seen: seen.value("ringfence_recalls_total") > before.value("ringfence_recalls_total"))
    assert after.value("ringfence_recalls_total") - before.value("ringfence_recalls_total") == 1
    count = "ringfence_recall_latency_seconds_count"
    assert after.value(count) - before.value(count) == 1
    assert after.value("ringfence_recall_latency_seconds_sum") < 20


@pytest.mark.broker
async def test_what_cannot_be_used_is_counted_by_topic_and_code(guard: Running) -> None:
    """Nothing of the record itself is in a label."""
    before = await scraped(guard)
    (of,) = numbers(1)
    await guard.client.put_raw("callees", of.encode(), b"{")
    await guard.client.put("call-requests", request(of) | {"own_offer": "maybe", "surprise": of})
    await guard.client.put(*consent(of, surprise=of))

    def rises(after: Scrape) -> list[float]:
        samples: list[tuple[str, Mapping[str, str]]] = [
            ("ringfence_rejected_total", {"topic": "callees", "code": "json"}),
            ("ringfence_rejected_total", {"topic": "call-requests", "code": "type"}),
            ("ringfence_unknown_fields_total", {}),
        ]
        return [after.value(name, **labels) - before.value(name, **labels) for name, labels in samples]

    await shows(guard, lambda after: rises(after) == [1, 1, 1])


@pytest.mark.broker
async def test_a_misplaced_record_is_counted_by_topic(kafka: str, redis_url: str) -> None:
    """Two partitions, and a record in the wrong one. Both partitions are shown as owned and ready."""
    async with running_scene(kafka, redis_url, partitions=2, metrics=ANY_PORT) as guard:
        (of,) = numbers(1)
        _, fact = consent(of)
        await guard.client.put_raw("consents", of.encode(), encode(fact), partition=1 - home(of, 2))
        seen = await shows(guard, lambda seen: seen.value("ringfence_misplaced_total", topic="consents") == 1)
        assert seen.value("ringfence_partitions_owned") == seen.value("ringfence_partitions_ready") == 2
        assert seen.value("ringfence_take_over_seconds_count") >= 2
        assert seen.value("ringfence_rebuild_seconds_count") == 0


@pytest.mark.broker
async def test_a_rebuild_is_counted_with_what_it_read(guard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are written; Redis forgets; while the partition is filled the worker shows that it is not ready, and why."""
    before = await scraped(guard)
    await guard.client.put_all(map(consent, numbers(20)))
    states = before.value("ringfence_checkpoint_states_total") + 20
    written = await shows(guard, lambda seen: seen.value("ringfence_checkpoint_states_total") >= states)
    assert written.value("ringfence_checkpoints_total") > before.value("ringfence_checkpoints_total")
    assert (written.value("ringfence_partitions_ready"), written.value("ringfence_rebuild_seconds_count")) == (1, 0)
    go_on, checkpoints = asyncio.Event(), guard.worker._checkpoints
    fill = checkpoints.fill

    async def held(partition: Partition, mine: Meta, progress: Callable[[int, int], None]) -> dict[str, int]:
        progress(3, 10)
        await go_on.wait()
        return await fill(partition, mine, progress)

    monkeypatch.setattr(checkpoints, "fill", held)
    settings = guard.client.settings
    with redis_client.Redis.from_url(settings.redis.get_secret_value()) as client:
        client.unlink(*client.scan_iter(match=f"{settings.redis_prefix}:*", count=1000))
    during = await shows(guard, lambda seen: seen.value("ringfence_not_ready", reason="rebuilding") == 1)
    assert during.value("ringfence_partitions_rebuilding") == 1
    assert during.value("ringfence_rebuild_unread_records") == 7
    assert during.value("ringfence_partitions_ready") == during.value("ringfence_ready") == 0
    go_on.set()
    after = await shows(guard, lambda seen: seen.value("ringfence_ready") == 1)
    assert after.value("ringfence_rebuild_seconds_count") == after.value("ringfence_partitions_ready") == 1
    assert after.value("ringfence_rebuild_unread_records") == 0
    assert after.value("ringfence_partitions_rebuilding") == after.value("ringfence_not_ready", reason="rebuilding") == 0
    assert after.value("ringfence_rebuild_records_total") - before.value("ringfence_rebuild_records_total") > 20


@pytest.mark.broker
async def test_no_figure_tells_of_a_person(guard: Running) -> None:
    """Labels hold codes and names of topics; numbers and ids stay out, those of broken records too."""
    (of,) = numbers(1)
    await guard.client.put_raw("objections", of.encode(), encode({"number": of}))
    await guard.client.put_raw("call-requests", of.encode(), encode({"request_id": "q-of-somebody", of: of}))
    asked = await ask(guard.client, of)
    seen = await shows(guard, lambda seen: seen.value("ringfence_rejected_total", topic="objections", code="missing") > 0)
    assert "S_QUARANTINED" in asked["reasons"]
    assert [one for one in ("+31", of[1:], "q-of-somebody") if one in seen.text] == []
    labels = [one.labels.items() for family in seen.families.values() for one in family.samples]
    assert {value for items in labels for name, value in items if name != "le" and not re.fullmatch(r"[A-Za-z_-]+", value)} <= {
        *ALL_CODES
    }


@pytest.mark.broker
async def test_a_port_that_is_taken_keeps_a_worker_from_starting(kafka: str, redis_url: str, prefix: str) -> None:
    """Before it joins the group; whoever watches it must not look at somebody else's figures."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotStart, match=f"RINGFENCE_METRICS: cannot listen at {address}: .*in use"):
            async with running_worker(guard_settings(kafka, redis_url, prefix, metrics=address)):
                pass


@pytest.mark.broker
async def test_the_endpoint_comes_when_asked_for_and_goes_with_the_worker(kafka: str, redis_url: str) -> None:
    """None by default; the port is free again afterwards."""
    async with running_scene(kafka, redis_url, partitions=1) as guard:
        assert guard.worker.metrics is None
    async with running_scene(kafka, redis_url, partitions=1, metrics=ANY_PORT) as guard:
        port = guard.worker.metrics.port
        assert (await scraped(guard)).value("ringfence_ready") == 1
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
