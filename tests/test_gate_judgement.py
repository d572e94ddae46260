"""The judgement of the dial gate, without a broker: any order, repeats, any lag, clocks that differ, a memory that is too small."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.client import Permission, Reason
from ops.client.currency import Currency
from ops.client.guard_time import GuardTime, Now
from ops.client.joined import REASKED, Joined
from ops.client.keeper import Keeper
from rules.instants import MINUTE, SECOND, format_instant, parse_instant

START = parse_instant("2026-11-23T13:00:00Z")
TOLERANCE = 2 * SECOND
REMEMBER = 1500 * SECOND
BOUND_S = 1.0


def record(request_id: str = "q-1", decision: str = "approved", *, decided_at: int = START, **fields: Any) -> bytes:
    """The bytes of a decision; an approval is valid for a minute from now on."""
    approved = decision == "approved"
    value = {
        "request_id": request_id, "number": "+31612345678", "decision": decision, "kind": "decision",
        "dial_at": format_instant(decided_at), "decided_at": format_instant(decided_at),
        "valid_until": format_instant(decided_at + MINUTE) if approved else None, "reasons": [] if approved else ["E_OBJECTION"],
    }  # fmt: skip
    return msgspec.json.encode({**value, **fields})


class Gate:
    """A gate that is current, at an instant that tests set; the monotonic clock runs along."""

    def __init__(self, *, most: int = 1000, mine: str = "", remember: int = REMEMBER) -> None:
        self.keeper = Keeper(Joined(remember, most), GuardTime(TOLERANCE), Currency(BOUND_S), mine)
        self.keeper.currency.begin({0: 0})

    def read(self, value: bytes, *, approves: bool | None = None, at: int = START) -> None:
        approval = b'"approved"' in value if approves is None else approves
        self.keeper.read(value, approves=approval, now=clocks(at))

    def says(self, at: int = START, request_id: str = "q-1") -> Permission:
        currency = self.keeper.currency
        currency.found(currency.look(at / SECOND), {0: 0})
        return self.keeper.may_dial(request_id, clocks(at))


def clocks(at: int, skew: int = 0) -> Now:
    return Now(at + skew, at / SECOND)


# --- one reason after the other -------------------------------------------------------------------------------------------------


def test_an_approval_may_be_dialled_until_it_ends() -> None:
    """With the tolerance taken off, exclusive; and a permission is as true as its reason."""
    gate = Gate()
    gate.read(record())
    yes = gate.says()
    assert (bool(yes), yes.reason, yes.until) == (True, Reason.APPROVED, datetime(2026, 11, 23, 13, 1, tzinfo=UTC))
    assert gate.says(START + MINUTE - TOLERANCE - 1)
    last = gate.says(START + MINUTE - TOLERANCE)
    assert (bool(last), last.reason) == (False, Reason.EXPIRED)


def test_nothing_is_dialled_before_its_time() -> None:
    """By the slowest clock that may be right; what the guard has decided since shows that its own has come so far."""
    gate, dial_at = Gate(), START + 10 * SECOND
    gate.read(record(dial_at=format_instant(dial_at), valid_until=format_instant(dial_at + MINUTE)), at=START + 5 * SECOND)
    assert gate.says(dial_at).reason is Reason.TOO_EARLY
    assert gate.says(dial_at + TOLERANCE)
    gate.read(record("q-2", decided_at=dial_at), at=dial_at)
    assert gate.says(dial_at)


def test_what_the_guard_has_not_approved_is_not_dialled() -> None:
    """Refused with its codes, or never heard of."""
    gate = Gate()
    gate.read(record(decision="blocked"))
    no = gate.says()
    assert (no.reason, no.codes, no.text) == (Reason.BLOCKED, ("E_OBJECTION",), "not approved, E_OBJECTION")
    assert gate.says(request_id="q-2").reason is Reason.UNKNOWN


@pytest.mark.parametrize("kind", ["recall", "decision"])
@pytest.mark.parametrize("first", ["approved", "blocked"])
def test_blocked_wins_in_either_order(first: str, kind: str) -> None:
    """A recall, and a second decision that a late publish brought to light; a repeat of the approval changes nothing."""
    gate, approval = Gate(), record()
    refusal = record(decision="blocked", kind=kind, decided_at=START + SECOND)
    for value in (approval, refusal) if first == "approved" else (refusal, approval):
        gate.read(value)
    gate.read(approval)
    assert gate.says().reason is (Reason.RECALLED if kind == "recall" else Reason.BLOCKED)


def test_a_record_among_the_approvals_that_does_not_approve_refuses() -> None:
    """A topic's name is no approval."""
    gate = Gate()
    gate.read(record(decision="blocked"), approves=True)
    assert gate.says().reason is Reason.BLOCKED
    gate.read(record("q-2", kind="recall"), approves=True)
    assert gate.says(request_id="q-2").reason is Reason.RECALLED


def test_one_request_id_for_two_numbers_is_dialled_for_neither() -> None:
    gate = Gate()
    gate.read(record())
    gate.read(record(number="+31687654321"))
    assert gate.says().reason is Reason.CONFLICT


def test_a_later_approval_of_a_request_asked_anew_holds() -> None:
    """In either order; the window is that of the later one."""
    later = record(decided_at=START + 2 * REASKED)
    for values in ((record(), later), (later, record())):
        gate = Gate()
        for value in values:
            gate.read(value, at=START + 2 * REASKED)
        assert gate.says(START + 2 * REASKED)
        assert not gate.says(START + 2 * REASKED + MINUTE)


def test_the_stricter_of_two_windows_holds() -> None:
    gate = Gate()
    gate.read(record(valid_until=format_instant(START + 30 * SECOND)))
    gate.read(record(dial_at=format_instant(START + 10 * SECOND)))
    assert gate.says(START + 5 * SECOND).reason is Reason.TOO_EARLY
    assert gate.says(START + 15 * SECOND)
    assert gate.says(START + 30 * SECOND).reason is Reason.EXPIRED


# --- clocks ---------------------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_behind_the_guards_is_not_trusted() -> None:
    """An hour behind, every approval would seem to be valid for an hour more."""
    gate = Gate()
    gate.read(record())
    gate.says()
    assert gate.keeper.may_dial("q-1", clocks(START, -TOLERANCE))
    assert gate.keeper.may_dial("q-1", clocks(START, -TOLERANCE - 1)).reason is Reason.CLOCK


def test_a_guard_that_was_far_ahead_is_believed_for_a_minute() -> None:
    """A worker's clock may have been wrong; a decision after a minute tells that it is right again."""
    gate = Gate()
    gate.read(record("wrong", decided_at=START + 60 * MINUTE))
    assert gate.says(START + 59 * SECOND, "q-1").reason is Reason.CLOCK
    gate.read(record(decided_at=START + 61 * SECOND), at=START + 61 * SECOND)
    assert gate.says(START + 61 * SECOND)


# --- being current --------------------------------------------------------------------------------------------------------------


def test_a_reader_that_just_started_permits_nothing() -> None:
    gate = Gate()
    gate.read(record())
    no = gate.keeper.may_dial("q-1", clocks(START))
    assert (no.reason, no.text) == (Reason.BEHIND, "the topics have not been read up to their ends since the start")


def test_a_reader_that_does_not_hear_of_the_ends_permits_nothing() -> None:
    """No broker, or one that is slow: the moment as of which all is known lies too far back."""
    gate = Gate()
    gate.read(record())
    assert gate.says()
    late = START + int(BOUND_S * SECOND)
    assert gate.keeper.may_dial("q-1", clocks(late))
    no = gate.keeper.may_dial("q-1", clocks(late + SECOND))
    assert (no.reason, no.text) == (Reason.BEHIND, "the topics were last known to be read up to their ends as of 2.0 s ago")


def test_an_end_counts_from_when_it_was_asked_for() -> None:
    """Not from when it was answered or reached: a recall may have come in between."""
    currency = Currency(BOUND_S)
    currency.begin({"a": 0, "b": 5})
    look = currency.look(10.0)
    currency.found(look, {"a": 2, "b": 5})
    assert (currency.waits, currency.is_current(10.0)) == (True, False)
    currency.read_up_to("a", 3)
    assert (currency.waits, currency.as_of_s) == (False, 10.0)
    assert [currency.is_current(at) for at in (11.0, 11.01)] == [True, False]


def test_an_end_below_what_was_read_is_none() -> None:
    """Another log, or a leader that does not know its own end yet; also where the broker says nothing of a partition."""
    currency = Currency(BOUND_S)
    currency.begin({"a": 4})
    for ends in ({"a": 3}, {}):
        currency.found(currency.look(1.0), ends)
        assert (currency.waits, currency.as_of_s) == (False, None)


def test_a_reader_of_nothing_is_not_current() -> None:
    """Before the partitions are known there is nothing that could be read to its end."""
    currency = Currency(BOUND_S)
    currency.found(currency.look(1.0), {})
    assert currency.as_of_s is None


# --- memory ---------------------------------------------------------------------------------------------------------------------


def test_what_can_no_longer_matter_is_forgotten() -> None:
    gate = Gate()
    gate.read(record())
    gate.read(record("q-2", decision="blocked", decided_at=START + MINUTE), at=START + MINUTE)
    gate.read(record("q-3", decided_at=START + 10 * MINUTE), at=START + 10 * MINUTE)
    gate.keeper.forget(clocks(START + REMEMBER + 3 * MINUTE))
    assert len(gate.keeper) == 1
    assert gate.says(START + 10 * MINUTE, "q-3").reason is not Reason.UNKNOWN


def test_what_was_decided_anew_is_remembered_from_then_on() -> None:
    """It was listed under its first decision."""
    gate = Gate()
    gate.read(record(decision="blocked"))
    gate.read(record(decision="blocked", decided_at=START + 20 * MINUTE), at=START + 20 * MINUTE)
    for minutes in (3, 19):
        gate.keeper.forget(clocks(START + REMEMBER + minutes * MINUTE))
        assert len(gate.keeper) == 1
    gate.keeper.forget(clocks(START + REMEMBER + 22 * MINUTE))
    assert len(gate.keeper) == 0


def test_a_clock_far_ahead_makes_nothing_forgotten() -> None:
    """What the decisions say must have passed as well."""
    gate = Gate()
    gate.read(record(decision="blocked"))
    gate.keeper.forget(clocks(START, 24 * 60 * MINUTE))
    assert gate.says().reason is Reason.BLOCKED


def test_where_a_refusal_finds_no_room_approvals_are_refused() -> None:
    """It may have been theirs. What the guard decides five minutes later is beyond doubt."""
    gate = Gate(most=1)
    gate.read(record())
    gate.read(record("q-2", decision="blocked"))
    assert gate.says().reason is Reason.UNCERTAIN
    later = START + REASKED + 2 * TOLERANCE
    gate.read(record(decided_at=later), at=later)
    assert gate.says(later)


def test_an_approval_that_finds_no_room_is_not_dialled() -> None:
    gate = Gate(most=1)
    gate.read(record("q-2"))
    gate.read(record())
    assert gate.says().reason is Reason.UNKNOWN
    assert gate.says(request_id="q-2")


def test_a_refusal_that_cannot_be_read_makes_approvals_doubtful() -> None:
    """Broken bytes among the approvals are none, and harm nobody else."""
    gate = Gate()
    gate.read(record())
    gate.read(b"{broken", approves=True)
    assert gate.says()
    gate.read(b"{broken", approves=False)
    assert gate.says().reason is Reason.UNCERTAIN


def test_an_approval_for_longer_than_refusals_are_remembered_is_refused() -> None:
    gate = Gate()
    gate.read(record(valid_until=format_instant(START + REMEMBER - REASKED + 1)))
    assert gate.says().reason is Reason.UNCERTAIN


def test_requests_of_others_are_not_kept() -> None:
    gate = Gate(mine="mine-")
    gate.read(record("theirs-1"))
    gate.read(record("mine-1"))
    assert len(gate.keeper) == 1
    assert gate.says(request_id="mine-1")


@pytest.mark.parametrize("wrong", [{"remember": REASKED}, {"most": 0}])
def test_a_memory_that_is_none_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="want to remember"):
        Gate(**wrong)


# --- whatever happens -----------------------------------------------------------------------------------------------------------

SKEWS = st.sampled_from([-TOLERANCE, 0, TOLERANCE])
REQUESTS = st.sampled_from(["q-1", "q-1", "q-2"])
#: How long a record is under way; decisions of one request lie within the request memory.
LAGS = st.sampled_from([0, SECOND, SECOND, REASKED // 2])
#: What may make a difference: an approval's begin and end, the request memory, what is remembered.
WAITS = st.sampled_from([0, SECOND, 9 * SECOND, 58 * SECOND, MINUTE, REASKED, REMEMBER - REASKED, REMEMBER])
APPROVE = st.tuples(st.just("approve"), REQUESTS, LAGS, st.sampled_from([0, 0, 10, 900]), st.sampled_from([60, 60, 1200, 1800]))
REFUSE = st.tuples(st.just("refuse"), REQUESTS, LAGS, st.sampled_from(["decision", "recall", "broken"]))
WAIT = st.tuples(st.just("wait"), WAITS)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from([1, 2, 1000]), st.lists(st.tuples(st.one_of(APPROVE, REFUSE, WAIT, WAIT), SKEWS), min_size=2, max_size=10))
def test_no_records_in_any_order_give_a_wrong_yes(most: int, steps: list[tuple[Any, int]]) -> None:
    """Never after a refusal was read, never outside of the approval's window; by any clock within the tolerance, in any memory."""
    gate, time, refused = Gate(most=most), START, set[str]()
    first_decided: dict[str, int] = {}
    windows: dict[str, list[tuple[int, int]]] = {}
    for (what, *drawn), skew in steps:
        if what == "wait":
            time += drawn[0]
            gate.keeper.forget(clocks(time, skew))
        else:
            request_id, lag, *rest = drawn
            decided_at = time - lag
            if abs(decided_at - first_decided.setdefault(request_id, decided_at)) > REASKED // 2:
                continue  # would be a new request
            if what == "approve":
                ahead, valid_s = rest
                begin, end = decided_at + ahead * SECOND, decided_at + (ahead + valid_s) * SECOND
                windows.setdefault(request_id, []).append((begin, end))
                value = record(request_id, decided_at=decided_at, dial_at=format_instant(begin), valid_until=format_instant(end))
            else:
                refused.add(request_id)
                value = b"?" if rest == ["broken"] else record(request_id, "blocked", decided_at=decided_at, kind=rest[0])
            gate.keeper.read(value, approves=what == "approve", now=clocks(time, skew))
        gate.says(time)
        for request_id in first_decided:
            if any(gate.keeper.may_dial(request_id, clocks(time, seen)) for seen in (-TOLERANCE, 0, TOLERANCE)):
                assert request_id not in refused
                assert any(begin <= time < end for begin, end in windows[request_id])


STEPS = st.one_of(st.sampled_from(["refuse", "ask", "hear", "read"]), st.sampled_from([0.3, 0.7, 1.1]))


@settings(max_examples=1500, deadline=None)
@given(st.lists(STEPS, min_size=3, max_size=14))
def test_no_refusal_is_dialled_past_that_is_in_the_log_for_the_bound(steps: list[str | float]) -> None:
    """Whenever the ends are asked for and heard of, and however far reading lags. The approval was read before."""
    gate, now_s, log, read = Gate(), START / SECOND, list[float](), 0  # the log of refusals: when each was written
    gate.read(record(valid_until=format_instant(START + 15 * MINUTE)))
    currency = gate.keeper.currency
    look = currency.look(now_s)
    for step in steps:
        if isinstance(step, float):
            now_s += step
        elif step == "refuse":
            log.append(now_s)
        elif step == "ask":
            look = currency.look(now_s)
        elif step == "hear":
            currency.found(look, {0: len(log)})
        elif read < len(log):
            gate.read(record(decision="blocked"), at=round(now_s * SECOND))
            read += 1
            currency.read_up_to(0, read)
        if gate.keeper.may_dial("q-1", clocks(round(now_s * SECOND))):
            assert read == 0
            assert not log or now_s - log[0] <= BOUND_S
