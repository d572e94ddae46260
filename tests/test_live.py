"""The live view: figures from hand-made decisions, and what of them a terminal or a pipe gets to see."""

import io
import re
import time

import msgspec
import pytest
from aiokafka import ConsumerRecord
from rich.console import Console

from config.settings import Settings
from ops.histogram import Histogram
from ops.live import LiveReader
from ops.load import SentTimes
from ops.statistics import OTHERS, PARTIES_MAX, Seen, Statistics
from ops.view import MEANINGS, Screen, guard_time, live_view, sparkline, status_line, summary_lines
from rules.codes import ALL_CODES

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x80-\x9f]")


def seen(request_id="q-1", *, basis=None, reasons=(), kind="decision", **fields) -> Seen:
    value = {
        "request_id": request_id,
        "number": "+31612345678",
        "campaign_id": "c-1",
        "advertiser_id": "A",
        "intermediary_id": None,
        "call_centre_id": None,
        "decision": "blocked" if basis is None else "approved",
        "kind": kind,
        "basis": basis,
        "reasons": list(reasons),
        "decided_at": "2026-11-23T13:00:00Z",
        **fields,
    }
    return msgspec.convert(value, Seen)


def add(statistics: Statistics, decision: Seen, at: float = 0.0, latency_s: float | None = None) -> bool:
    is_new = statistics.add(decision, msgspec.json.encode(decision), at)
    if is_new and latency_s is not None:
        statistics.add_latency("due_to_read", latency_s, at)
    return is_new


@pytest.fixture
def busy() -> Statistics:
    """Ten seconds with three decisions a second, all codes, and parties of every role."""
    statistics = Statistics(0.0, {"A": "Duinstroom Energie", "I": "Keuzebaken"})
    blocking = [code for code in ALL_CODES if code.startswith(("S_", "E_", "P_"))]
    for i in range(30):
        at = i / 3
        if i % 3 == 0:
            add(statistics, seen(f"q-{i}", basis="OK_CONSENT", intermediary_id="I"), at, 0.010)
        else:
            add(statistics, seen(f"q-{i}", reasons=[*blocking[i:], "E_OBJECTION"], call_centre_id="C"), at, 0.020)
    for i in range(9):
        decision = seen(f"x-{i}", reasons=["E_NO_BASIS"], advertiser_id=f"advertiser with a long name, number {i}")
        add(statistics, decision, 9.9, 1.5)
    add(statistics, seen("q-0", reasons=["E_OBJECTION"], kind="recall"), 9.9)
    statistics.reject("format")
    return statistics


def test_decisions_are_counted_by_outcome_reason_basis_and_party(busy):
    snapshot = busy.snapshot(10.0)
    assert (snapshot.approved, snapshot.blocked, snapshot.recalls, snapshot.decisions) == (10, 29, 1, 39)
    assert dict(snapshot.bases) == {"OK_CONSENT": 10}
    assert dict(snapshot.reasons)["E_OBJECTION"] >= 20
    assert snapshot.rejected == [("format", 1)]
    counts = {(party.role, party.party_id): (party.approved, party.blocked) for party in snapshot.parties}
    assert counts["advertiser", "A"] == (10, 20)
    assert counts["intermediary", "I"] == (10, 0)
    assert counts["call centre", "C"] == (0, 20)


def test_a_record_that_comes_twice_counts_once():
    statistics = Statistics(0.0)
    assert add(statistics, seen(reasons=["E_NO_BASIS"]))
    assert not add(statistics, seen(reasons=["E_NO_BASIS"]))
    snapshot = statistics.snapshot(1.0)
    assert (snapshot.blocked, snapshot.repeats, snapshot.contradictions) == (1, 1, 0)


def test_a_second_decision_that_differs_is_a_contradiction():
    statistics = Statistics(0.0)
    add(statistics, seen(reasons=["E_NO_BASIS"]))
    add(statistics, seen(basis="OK_CONSENT"))
    snapshot = statistics.snapshot(1.0)
    assert (snapshot.blocked, snapshot.approved, snapshot.contradictions) == (1, 0, 1)


def test_the_same_request_id_for_another_number_is_another_request():
    statistics = Statistics(0.0)
    assert add(statistics, seen(basis="OK_CONSENT"))
    assert add(statistics, seen(basis="OK_CONSENT", number="+31612345679"))


def test_a_recall_is_no_second_decision():
    statistics = Statistics(0.0)
    add(statistics, seen(basis="OK_CONSENT"))
    add(statistics, seen(reasons=["E_OBJECTION"], kind="recall"))
    snapshot = statistics.snapshot(1.0)
    assert (snapshot.approved, snapshot.blocked, snapshot.recalls, snapshot.contradictions) == (1, 0, 1, 0)


def test_decisions_a_second_are_those_of_whole_seconds(busy):
    snapshot = busy.snapshot(10.4)
    assert snapshot.per_second == [3] * 9 + [12]
    assert snapshot.rate == (4 * 3 + 12) / 5
    assert busy.snapshot(13.0).per_second[-3:] == [0, 0, 0]


@pytest.mark.parametrize("value", [0.00002, 0.0087, 0.14, 2.5, 900.0])
def test_quantiles_are_within_a_hundredth(value):
    histogram = Histogram()
    for _ in range(100):
        histogram.add(value)
    assert histogram.quantile(0.5) == pytest.approx(value, rel=0.011)


def test_p99_is_the_slowest_of_a_hundred_but_one():
    histogram = Histogram()
    for i in range(1, 101):
        histogram.add(i / 1000)
    assert histogram.quantile(0.5) == pytest.approx(0.050, rel=0.011)
    assert histogram.quantile(0.99) == pytest.approx(0.099, rel=0.011)


def test_the_last_minute_forgets_what_is_older():
    statistics = Statistics(0.0)
    add(statistics, seen("q-1", basis="OK_CONSENT"), at=1.0, latency_s=5.0)
    add(statistics, seen("q-2", basis="OK_CONSENT"), at=100.0, latency_s=0.01)
    snapshot = statistics.snapshot(100.0)
    assert snapshot.latency is not None
    assert snapshot.latency_last_minute is not None
    assert (snapshot.latency.count, snapshot.latency_last_minute.count) == (2, 1)
    assert snapshot.latency_last_minute.p99 < 0.02


def test_memory_stays_flat_over_many_parties_and_hours():
    statistics = Statistics(0.0)
    for i in range(3000):
        add(statistics, seen(f"q-{i}", basis="OK_CONSENT", advertiser_id=f"party-{i}"), at=i * 10.0, latency_s=0.01)
    snapshot = statistics.snapshot(30_000.0)
    assert len(snapshot.parties) == PARTIES_MAX + 1
    assert sum(party.approved for party in snapshot.parties if party.party_id == OTHERS) == 3000 - PARTIES_MAX
    assert len(statistics._per_second) <= 120
    assert len(statistics._slices) <= 12


def test_every_code_has_a_meaning_that_fits_on_80_columns():
    assert set(MEANINGS) == set(ALL_CODES)
    assert [meaning for meaning in MEANINGS.values() if len(meaning) > 36] == []


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 139, 140, 200, 300])
@pytest.mark.parametrize("height", [5, 16, 24, 40, 80])
def test_a_frame_fits_its_terminal(busy, width, height):
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(live_view(busy.snapshot(10.0), width, height, state="00:10 of 01:00"))
    lines = out.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert len(lines) <= max(height, 14)


def test_80_by_24_shows_the_whole_story(busy):
    out = io.StringIO()
    Console(file=out, width=80, height=24).print(live_view(busy.snapshot(10.0), 80, 24, title="ringfence demo", state="00:10"))
    text = out.getvalue()
    assert len(text.splitlines()) <= 24
    for word in ("Mon 23 Nov 2026 14:00:00", "10 approved", "29 blocked", "1 recalled", "E_OBJECTION", "the person objected"):
        assert word in text
    for word in ("Duinstroom Energie", "intermediary", "call centre", "p50", "p99", "1 rejected records"):
        assert word in text


def test_a_summary_fits_80_columns(busy):
    assert [line for line in summary_lines(busy.snapshot(10.0)) if len(line) > 80] == []


def test_an_empty_view_is_no_crash():
    snapshot = Statistics(0.0).snapshot(0.0)
    Console(file=io.StringIO(), width=80).print(live_view(snapshot, 80, 24))
    assert "no decision yet" in status_line(snapshot)
    assert summary_lines(snapshot)


def test_a_pipe_gets_plain_lines(busy, monkeypatch):
    """Not even where the environment asks for colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    with Screen("ringfence demo", out) as screen:
        screen.show(busy.snapshot(10.0), "00:10 of 01:00")
        screen.show(busy.snapshot(11.0), "00:11 of 01:00")
    screen.close_with(summary_lines(busy.snapshot(12.0), ["done"]))
    text = out.getvalue()
    assert CONTROL.search(text.replace("\n", "")) is None
    lines = text.splitlines()
    assert lines[0].startswith("00:10 of 01:00: Mon 23 Nov 2026 14:00:00, ")
    assert "10 approved" in lines[1]
    assert lines[-1] == "done"


class Terminal(io.StringIO):
    """What looks like a terminal of 80 by 24."""

    encoding = "utf-8"

    def isatty(self):
        return True


def test_no_color_is_respected_on_a_terminal(busy, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    with Screen("ringfence demo", out) as screen:
        screen.show(busy.snapshot(10.0))
    colours = re.findall(r"\x1b\[[0-9;]*m", out.getvalue())
    assert not [sequence for sequence in colours if re.search(r"[;\[](3[0-9]|4[0-9]|9[0-9])[;m]", sequence)]
    assert "E_OBJECTION" in out.getvalue()


def test_a_dumb_terminal_is_treated_like_a_pipe(busy, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with Screen("ringfence demo", out) as screen:
        screen.show(busy.snapshot(10.0))
    assert "\x1b" not in out.getvalue()


def test_the_json_has_every_figure(busy):
    value = msgspec.json.decode(msgspec.json.encode(busy.snapshot(10.0).as_json()))
    assert (value["decisions"], value["approved"], value["blocked"], value["recalls"]) == (39, 10, 29, 1)
    assert value["latency_kind"] == "due_to_read"
    assert value["latency_ms"]["count"] == 39
    assert value["latency_ms"]["p50"] == pytest.approx(20, rel=0.02)


def test_an_ascii_terminal_gets_ascii_sparks():
    assert sparkline([0, 1, 4, 8], 4).isascii() is False
    assert sparkline([0, 1, 4, 8], 4, unicode=False).isascii()
    assert sparkline([1, 2, 3], 2) == sparkline([9, 2, 3], 2)


def test_a_clock_that_nobody_can_read_is_no_crash():
    statistics = Statistics(0.0)
    add(statistics, seen(decided_at="soon"))
    assert guard_time(statistics.snapshot(1.0)) == "clock unreadable"


def logged(topic: str, offset: int, timestamp: int, value: bytes = b"", headers=(), kind: int = 1) -> ConsumerRecord:
    return ConsumerRecord(Settings().topic(topic), 0, offset, timestamp, kind, b"k", value, None, 1, len(value), headers)


@pytest.mark.parametrize("first", ["request", "decision"])
@pytest.mark.parametrize(("clock", "label"), [(1, "log_times"), (0, "producer_times")])
def test_log_times_pair_a_decision_with_its_request_in_either_order(first, clock, label):
    """Dropping the decisions that are read before their requests would drop the fastest."""
    statistics = Statistics(0.0)
    reader = LiveReader(Settings(), statistics)
    value = msgspec.json.encode(seen(basis="OK_CONSENT"))
    records = {
        "request": logged("call-requests", 17, 1000, kind=clock),
        "decision": logged("approved-calls", 4, 1250, value, [("input-offset", b"17")], kind=clock),
    }
    for name in sorted(records, key=lambda name: name != first):
        reader._read("call-requests" if name == "request" else "approved-calls", records[name])
    snapshot = statistics.snapshot(1.0)
    assert snapshot.latency_kind == label
    assert snapshot.latency is not None
    assert snapshot.latency.p50 == pytest.approx(0.250, rel=0.011)
    assert len(reader._log_times) == 0


def test_whoever_sends_the_requests_measures_from_when_they_were_due():
    """Once a request: a repeated record is no second measurement, and a decision nobody waits for is none."""
    statistics, sent = Statistics(0.0), SentTimes()
    reader = LiveReader(Settings(), statistics, sent)
    sent.expect("q-1", time.monotonic() - 3.0)
    for request_id in ("q-1", "q-1", "else"):
        reader._read("approved-calls", logged("approved-calls", 0, 0, msgspec.json.encode(seen(request_id, basis="OK_CONSENT"))))
    snapshot = statistics.snapshot(1.0)
    assert snapshot.latency_kind == "due_to_read"
    assert snapshot.latency is not None
    assert snapshot.latency.p50 == pytest.approx(3.0, rel=0.1)
    assert (snapshot.latency.count, snapshot.approved, snapshot.repeats, sent.missing) == (1, 2, 1, 0)


def test_a_record_that_is_no_decision_is_counted_and_passed_over():
    statistics = Statistics(0.0)
    reader = LiveReader(Settings(), statistics)
    reader._read("blocked-calls", logged("blocked-calls", 0, 0, b"{"))
    assert statistics.snapshot(1.0).unreadable == 1


def test_a_request_awaits_one_answer():
    """A repeat's answer, or somebody else's, has no due time and does not count as an answer."""
    sent = SentTimes()
    sent.expect("q-1", 10.0)
    sent.expect("q-2", 10.5)
    assert sent.take("q-1") == 10.0
    assert sent.take("q-1") is None
    assert sent.take("else") is None
    assert (sent.sent, sent.answered, sent.missing, len(sent)) == (2, 1, 1, 1)


def test_requests_beyond_the_limit_are_given_up_as_missing():
    sent = SentTimes(limit=2)
    for i in range(5):
        sent.expect(f"q-{i}", 0.0)
    assert (len(sent), sent.missing) == (2, 5)
