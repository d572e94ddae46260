"""The benchmarks at a small size: everybody answers everything, and the text-book agent decides as the guard does."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
import redis as redis_client

from benchmarks.contenders import CONTENDERS
from benchmarks.growth import Size, Town, picture, table
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


def test_growth_is_told_in_a_table_and_a_picture():
    """Beside the first size, with the spread of the backlogs."""
    sizes = [(1000, 2, [90, 100, 110]), (2000, 2, [50, 60, 55])]
    measured = [{"numbers": n, "facts": f, "decisions_per_s": r, "cpu_s_per_100000": [12.0]} for n, f, r in sizes]
    assert table(measured).splitlines()[2:] == [
        "| 1,000 | 2 | 100 (90 - 110) | 100% | 12.0 (12.0 - 12.0) |",
        "| 2,000 | 2 | 55 (50 - 60) | 55% | 12.0 (12.0 - 12.0) |",
    ]
    drawn = ET.fromstring(picture(measured))  # noqa: S314  # our own
    bars = [float(rect.attrib["width"]) for rect in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars[1] / bars[0] == pytest.approx(0.55, abs=0.01)


def test_a_town_of_any_size_is_asked_about_alike():
    """The same seed and label give the same requests, about numbers that it has."""
    town = Town(Size(50, 2), 30)
    asked = list(town.requests("a", 30))
    assert asked == list(town.requests("a", 30))
    assert {json.loads(one.value)["number"] for one in asked} <= {f"+316{10_000_000 + n}" for n in range(50)}


def test_a_percentile_is_one_of_the_values():
    """Nearest rank: the smallest value that so many do not exceed."""
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 0.99) == 99.0
    assert percentile([5.0], 0.99) == 5.0
