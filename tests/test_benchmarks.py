"""The benchmark at a small size: everybody answers everything, and the text-book agent decides as the guard does."""

from __future__ import annotations

import pytest
import redis as redis_client

from benchmarks.contenders import CONTENDERS
from benchmarks.measure import percentile
from benchmarks.report import as_json, machine, show
from benchmarks.run import Bench, Options
from benchmarks.workload import Workload


@pytest.mark.broker
@pytest.mark.slow
async def test_the_text_book_agent_and_the_guard_answer_every_request_alike(kafka, redis_url, prefix, capsys):
    """Same requests, same state: decision, basis, reasons, warnings and regime agree, or the ratio would compare two jobs."""
    options = Options(requests=500, numbers=300, repeat=1, rate=200.0, seconds=2.0, textbook_share=1.0)
    try:
        results = await Bench(kafka, redis_url, prefix, options, lambda _text: None).run()
    finally:
        with redis_client.Redis.from_url(redis_url) as client:
            for key in client.scan_iter(match=f"{prefix}*", count=1000):
                client.unlink(key)
    assert results.compared == 500
    assert results.different == 0
    assert 0.25 < results.approved_share < 0.55
    assert results.samples.keys() == {contender.name for contender in CONTENDERS}
    assert all(taken.decisions_per_s > 0 and 0 < taken.p50_ms <= taken.p99_ms for (taken,) in results.samples.values())

    show(results, machine())
    shown = capsys.readouterr().out
    assert all(contender.title in shown for contender in CONTENDERS)
    assert as_json(results, machine())["decisions_different"] == 0


def test_the_same_seed_gives_the_same_workload():
    """Two runs of the same seed measure the same work; ids alone are new."""
    one, other = Workload(7, 50, 80, 8), Workload(7, 50, 80, 8)
    assert one.facts == other.facts
    assert list(one.requests("a", 80)) == list(other.requests("a", 80))
    assert [request.key for request in one.requests("b", 80)] == [request.key for request in one.requests("a", 80)]


def test_an_open_loop_longer_than_the_workload_begins_again_under_new_ids():
    """A request_id that was used before would be answered from memory."""
    ids = [request.request_id for request in Workload(7, 50, 80, 8).open_loop("x", 200)]
    assert len(ids) == len(set(ids)) == 200


def test_a_percentile_is_one_of_the_values():
    """Nearest rank: the smallest value that so many do not exceed."""
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 0.99) == 99.0
    assert percentile([5.0], 0.99) == 5.0
