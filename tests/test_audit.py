"""The auditor passes what a guard without faults leaves behind, and names every fault that is planted in it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from agents.facts import FORWARDED
from config.settings import Settings
from ops.audit import findings as f
from ops.audit.findings import Tally
from ops.audit.histories import Histories
from ops.audit.moves import Homes
from ops.audit.positions import Positions
from ops.audit.records import APPROVED, BLOCKED
from ops.audit.report import as_json, print_report
from ops.audit.run import Options, run_audit
from rules.errors import CannotStart
from rules.events import REQUEST_TOPIC
from rules.instants import SECOND, parse_instant
from tests.harness import Client, Running, encode
from tests.log_world import PARTITIONS, LogWorld, of_here
from tests.scene import (
    NOW,
    ask,
    caller_number,
    consent,
    fresh,
    home,
    numbers,
    objection,
    outcome,
    party,
    relationship,
    release,
    request,
    running_scene,
    withdrawal,
)
from tests.servers import wait_for


@pytest.fixture
def world() -> LogWorld:
    """Logs in which a caller and its campaign are on file."""
    return LogWorld()


def approved(world: LogWorld, of: str, **fields: Any):
    """A request that is approved, and its decision."""
    world.put(*consent(of))
    asked, decision = world.ask(request(of, **fields))
    assert decision.approved, decision.reasons
    return asked, decision


# --- Nothing to find -------------------------------------------------------------------------------------------------------


def test_an_empty_log_is_clean(world: LogWorld):
    """There is nothing to break a promise about."""
    tally = world.audit()
    assert tally.clean
    assert tally.counts["requests"] == 0


def test_decisions_that_rest_on_their_facts_are_clean(world: LogWorld):
    """Approvals, blocked calls, stops of all kinds before the request, and reference entries that change in between."""
    one, two, three, four, five = of_here(5)
    approved(world, one)
    world.ask(request(two))
    world.put(*consent(three))
    world.put(*objection(three))
    world.ask(request(three))
    world.put(*consent(four))
    world.put(*withdrawal(four))
    world.put(*caller_number(published_by=[]))
    world.ask(request(four))
    world.put(*caller_number())
    world.put(*relationship(five, optout_used=True))
    world.ask(request(five))
    world.ask(request(one))
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["requests"] == tally.counts["decisions"] == tally.counts["re-decided"] == 6
    assert tally.counts["approvals"] == 2
    assert tally.counts["stops"] == 3


def test_repeats_copies_conflicts_and_misplaced_records_are_clean(world: LogWorld):
    """They are counted, and each is dealt with as the contract says."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    same = json.loads(asked.value)
    again = world.put(REQUEST_TOPIC, same)
    world.publish(decision, again.offset)
    world.publish(decision, again.offset)
    world.reject(world.put(REQUEST_TOPIC, {**same, "subject": "water"}), "conflict")
    (elsewhere,) = numbers(1, 1)
    world.put(REQUEST_TOPIC, request(elsewhere))
    world.put(*objection(elsewhere))
    world.reject(world.put_raw(REQUEST_TOPIC, of.encode(), b"{"), "json")
    tally = world.audit()
    assert dict(tally.violations) == {}
    counted = {name: tally.counts[name] for name in ("requests", "repeats", "copies", "conflicts", "misplaced", "rejected")}
    assert counted == {"requests": 3, "repeats": 1, "copies": 1, "conflicts": 1, "misplaced": 1, "rejected": 1}


def test_a_number_that_is_suspended_and_released_is_clean(world: LogWorld):
    """Broken objections and forwarded nulls suspend from their log time on, releases lift what came before them."""
    (of,) = of_here()
    world.put(*consent(of))
    for broken, headers in ((b"{", ()), (None, [(FORWARDED, b"1")])):
        record = world.put_raw("objections", of.encode(), broken, headers)
        if not headers:
            world.reject(record, "json", "objections")
        _, decision = world.ask(request(of))
        assert decision.reasons == ["S_QUARANTINED"]
        world.put(*release(of))
        _, decision = world.ask(request(of))
        assert decision.approved
        world.now_ms += 60_000  # the approval ends before the next one comes
    assert world.violations() == {}


def test_a_request_is_a_new_one_when_memory_is_over(world: LogWorld):
    """After the request memory it is decided anew, and may even ask otherwise."""
    (of,) = of_here()
    asked, _ = approved(world, of)
    world.now_ms += 301_000
    value = json.loads(asked.value) | {"dial_at": "2026-11-23T13:06:00Z", "subject": "energy/solar"}
    world.ask(value)
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["decisions"] == 2


def test_an_approval_that_was_recalled_is_clean(world: LogWorld):
    """Objection, recall, and a repeat that is answered with the recall."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    stop = world.put(*objection(of))
    recalled = world.recall(decision, stop, input_offset=asked.offset)
    again = world.put(REQUEST_TOPIC, json.loads(asked.value))
    world.publish(recalled, again.offset)
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["recalls"] == tally.counts["approvals met by a stop"] == 1
    assert tally.latencies_ms == [5]


def test_a_recall_may_come_before_its_approval_surfaces(world: LogWorld):
    """Blocked wins in whichever order; the time is taken from the approval."""
    (of,) = of_here()
    world.put(*consent(of))
    asked = world.put(REQUEST_TOPIC, request(of))
    decision = world.decide(asked)
    stop = world.put(*objection(of))
    world.recall(decision, stop)
    world.publish(decision, asked.offset)
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.latencies_ms == [0]


def test_an_objection_after_the_end_of_an_approval_needs_no_recall(world: LogWorld):
    """Nobody may dial on it any more; a repeat within memory still gets the same record."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    world.now_ms += 70_000
    world.put(*objection(of))
    again = world.put(REQUEST_TOPIC, json.loads(asked.value))
    world.publish(decision, again.offset)
    assert world.violations() == {}


def test_an_objection_to_something_else_needs_no_recall(world: LogWorld):
    """Another subject, another advertiser, and a fact that was there before under the same event_id."""
    (of,) = of_here()
    first = objection(of, event_id="once", subject="water")
    world.put(*first)
    approved(world, of)
    world.put(*objection(of, advertiser_id="B"))
    world.put("objections", {**first[1], "subject": None})
    world.put("objections", {**objection(of)[1], "subject": "telecom"})
    assert world.violations() == {}


def test_what_is_younger_than_the_bound_is_pending(world: LogWorld):
    """A request without an answer, a broken one that was not rejected yet, and an approval that an objection has just met."""
    one, two = of_here(2)
    approved(world, one)
    world.put(*objection(one))
    world.put(REQUEST_TOPIC, request(two))
    world.put_raw(REQUEST_TOPIC, two.encode(), b"{")
    tally = world.audit(later_s=10)
    assert dict(tally.violations) == {}
    assert tally.counts["pending"] == 3
    assert tally.pending_from == {(REQUEST_TOPIC, 0): 1, ("objections", 0): 0}


def test_decisions_that_say_that_they_are_behind_are_excused(world: LogWorld):
    """S_STATE_STALE is no answer from facts; it approves nothing, and that is all that can be asked of it."""
    (of,) = of_here()
    world.put(*consent(of))
    asked = world.put(REQUEST_TOPIC, request(of))
    changes = {"decision": "blocked", "basis": None, "reasons": ["S_STATE_STALE"], "valid_until": None}
    world.publish(world.decide(asked, {"consents": 0}), asked.offset, **changes)
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["refusals"] == 1


def test_decisions_of_another_rulebook_are_counted_apart(world: LogWorld):
    """What they should say cannot be known here."""
    (of,) = of_here()
    asked = world.put(REQUEST_TOPIC, request(of))
    world.publish(world.decide(asked), asked.offset, rulebook="nl@0000000000000000", reasons=["E_NO_BASIS", "E_MINOR"])
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["other rulebook"] == 1


def test_what_compaction_took_away_is_undecidable(world: LogWorld):
    """A decision that rests on an entry which has been replaced since, and is gone from the log."""
    (of,) = of_here()
    approved(world, of)
    world.put(*caller_number(published_by=["B"]))
    world.logs["caller-numbers"] = world.logs["caller-numbers"][1:]
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["undecidable"] == 1


def test_a_gap_that_cannot_matter_hides_nothing(world: LogWorld):
    """Whatever compaction took away below the end, the newest entries are there."""
    (of,) = of_here()
    world.put(*caller_number(published_by=["B"]))
    world.logs["caller-numbers"] = world.logs["caller-numbers"][1:]
    world.put(*consent(of))
    asked = world.put(REQUEST_TOPIC, request(of))
    decision = world.decide(asked)
    assert not decision.approved
    world.publish(decision, asked.offset, reasons=["E_NO_BASIS"])
    assert world.violations() == {f.WRONG_DECISION: 1}


def test_outputs_of_requests_that_retention_took_are_not_judged(world: LogWorld):
    """Requests are kept for a week, decisions for longer; a repeat of such a request is judged with its bytes."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    again = world.put(REQUEST_TOPIC, json.loads(asked.value))
    world.publish(decision, again.offset)
    world.logs[REQUEST_TOPIC] = world.logs[REQUEST_TOPIC][1:]
    world.begins[REQUEST_TOPIC] = 1
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert (tally.counts["outputs of older requests"], tally.counts["repeats"]) == (1, 1)


# --- Faults, each with its own name ----------------------------------------------------------------------------------------


def test_a_lost_request_is_found(world: LogWorld):
    """Neither decided nor rejected."""
    (of,) = of_here()
    world.put(REQUEST_TOPIC, request(of))
    world.put_raw(REQUEST_TOPIC, of.encode(), b"{")
    assert world.violations() == {f.LOST: 2}


def test_a_second_decision_is_found(world: LogWorld):
    """One request, two records."""
    (of,) = of_here()
    asked, _ = approved(world, of)
    world.now_ms += 10_000
    world.publish(world.decide(asked), asked.offset)
    assert world.violations() == {f.SECOND: 1}


@pytest.mark.parametrize(("after_s", "expected"), [(299, {f.DIFFERING: 1}), (300, {})])
def test_a_differing_repeat_is_found(world: LogWorld, after_s: int, expected: dict[str, int]):
    """Memory lasts 300 s from the decision: a repeat before gets the same bytes, at its end it is a new request."""
    (of,) = of_here()
    asked, _ = approved(world, of)
    world.now_ms += after_s * 1000 - 1000
    world.ask(json.loads(asked.value))
    assert world.violations() == expected


def test_memory_lasts_as_long_as_the_approval(world: LogWorld):
    """An approval to dial in ten minutes is remembered for longer than 300 s."""
    (of,) = of_here()
    asked, _ = approved(world, of, dial_at="2026-11-23T13:10:00Z")
    world.now_ms += 500_000
    world.ask(json.loads(asked.value))
    assert world.violations() == {f.DIFFERING: 1}


@pytest.mark.parametrize("same_bytes", [True, False])
def test_a_decided_conflict_is_found(world: LogWorld, same_bytes):
    """A repeat with other content belongs in rejected-events, whatever it is answered with."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    other = world.put(REQUEST_TOPIC, json.loads(asked.value) | {"subject": "water"})
    world.publish(decision if same_bytes else world.decide(other), other.offset)
    assert world.violations() == {f.CONFLICT: 1}


def test_an_approval_after_an_acknowledged_objection_is_found(world: LogWorld):
    """By log times: the objection was in the log a second before the request."""
    (of,) = of_here()
    world.put(*consent(of))
    before = world.ends()
    stop = world.put(*objection(of))
    asked = world.put(REQUEST_TOPIC, request(of))
    decision = world.decide(asked, before)
    world.publish(decision, asked.offset)
    world.recall(decision, stop)
    assert world.violations() == {f.OBJECTED: 1, f.TOO_LOW: 1}


@pytest.mark.parametrize(("behind_ms", "undecided"), [(100, 1), (0, 0)])
def test_log_times_that_are_too_close_decide_nothing(world: LogWorld, behind_ms: int, undecided: int):
    """Within the tolerance it is counted as undecided, not as passed; the recall has to come all the same."""
    (of,) = of_here()
    world.put(*consent(of))
    before = world.ends()
    stop = world.put(*objection(of))
    asked = world.put(REQUEST_TOPIC, request(of), after_ms=behind_ms)
    decision = world.decide(asked, before)
    world.publish(decision, asked.offset)
    tally = world.audit()
    assert dict(tally.violations) == {f.UNRECALLED: 1}
    assert tally.counts["undecided"] == undecided
    world.recall(decision, stop)
    assert world.violations() == {}


@pytest.mark.parametrize("after_ms", [20, 200])
@pytest.mark.parametrize(("sent_at", "expected"), [(10.02, True), (10.005, False)])
def test_histories_tell_what_log_times_cannot(world: LogWorld, after_ms: int, sent_at: float, expected):
    """The client had the acknowledgement, or not, when the other one sent its request; an acknowledgement may come late."""
    (of,) = of_here()
    world.put(*consent(of))
    before = world.ends()
    stop = world.put(*objection(of))
    asked = world.put(REQUEST_TOPIC, request(of), after_ms=after_ms)
    decision = world.decide(asked, before)
    world.publish(decision, asked.offset)
    world.recall(decision, stop)
    world.histories.note("objections", stop.offset, sent_at=10.0, acked_at=10.01)
    world.histories.note(REQUEST_TOPIC, asked.offset, sent_at=sent_at, acked_at=10.1)
    covered = {f.TOO_LOW: 1} if after_ms > 100 else {}
    assert world.violations() == ({f.OBJECTED: 1} | covered if expected else {})


@pytest.mark.parametrize(
    "stop",
    [
        objection,
        withdrawal,
        lambda of: outcome(of, "objected"),
        lambda of: relationship(of, optout_used=True),
        lambda of: ("objections", None),
    ],
    ids=["objection", "withdrawal", "objected outcome", "used opt-out", "forwarded null"],
)
def test_a_missing_recall_is_found(world: LogWorld, stop: Any):
    """Every kind of stop calls for one."""
    (of,) = of_here()
    _, decision = approved(world, of)
    topic, value = stop(of)
    record = world.put(topic, value) if value is not None else world.put_raw(topic, of.encode(), None, [(FORWARDED, b"1")])
    assert world.violations() == {f.UNRECALLED: 1}
    world.recall(decision, record, topic)
    assert world.violations() == {}


def test_a_broken_consent_calls_for_a_recall_and_for_a_report(world: LogWorld):
    """It may have been a withdrawal; and what cannot be read is told."""
    (of,) = of_here()
    _, decision = approved(world, of)
    record = world.put_raw("consents", of.encode(), b"{")
    assert world.violations() == {f.UNRECALLED: 1, f.UNREPORTED: 1}
    world.recall(decision, record, "consents")
    world.reject(record, "type", "consents")
    assert world.violations() == {f.WRONG_REJECTION: 1}
    world.reject(record, "json", "consents")
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["rejected facts"] == 1


def test_a_recall_of_an_earlier_decision_serves_no_later_one(world: LogWorld):
    """The same request_id, asked again when memory was over."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    stop = world.put(*objection(of))
    world.recall(decision, stop)
    world.now_ms += 301_000
    world.put(*consent(of, at="2026-11-23T13:05:00Z"))
    _, later = world.ask(json.loads(asked.value) | {"dial_at": "2026-11-23T13:06:00Z"})
    assert later.approved, later.reasons
    assert world.violations() == {}
    world.put(*objection(of))
    assert world.violations() == {f.UNRECALLED: 1}


def test_a_repeated_approval_after_the_recall_is_found(world: LogWorld):
    """A repeat is answered with the recall; the approval that an objection has met is none any more."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    world.recall(decision, world.put(*objection(of)))
    again = world.put(REQUEST_TOPIC, json.loads(asked.value))
    world.publish(decision, again.offset)
    assert world.violations() == {f.REVOKED: 1, f.OBJECTED: 1}


@pytest.mark.parametrize("of_approval", [True, False])
def test_an_unexplained_recall_is_found(world: LogWorld, of_approval):
    """No stop of the number reaches the request."""
    one, two = of_here(2)
    asked, decision = approved(world, one)
    if not of_approval:
        world.logs[APPROVED].clear()
    world.recall(decision, world.put(*objection(two)), input_offset=asked.offset)
    tally = world.audit()
    assert dict(tally.violations) == {f.UNEXPLAINED: 1}
    assert tally.counts["recalls without approval"] == (not of_approval)


def test_a_recall_for_a_copy_of_a_stop_is_cautious_and_no_violation(world: LogWorld):
    """An objection that a consent has lifted since stands in the log again: a guard that was rebuilt cannot tell it from a new one."""
    (of,) = of_here(1)
    lifted = objection(of, at="2026-11-19T10:00:00Z")
    world.put(*lifted)
    asked, decision = approved(world, of)
    world.recall(decision, world.put(*lifted), input_offset=asked.offset)
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert tally.counts["cautious recalls"] == 1


def test_a_recall_for_a_reason_of_the_guard_s_own_is_explained(world: LogWorld):
    """Whoever cannot trust the state takes back; several recalls of one request may come of it."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    recalled = world.recall(decision, world.put(*objection(of, advertiser_id="B")))
    world.logs[BLOCKED].clear()
    world.publish(recalled, asked.offset, reasons=["S_STATE_UNAVAILABLE"])
    world.publish(recalled, asked.offset, reasons=["S_STATE_STALE"])
    tally = world.audit()
    assert dict(tally.violations) == {}
    assert (tally.counts["recalls"], tally.counts["recalls beyond the first"]) == (2, 1)


@pytest.mark.parametrize("topic", ["consents", "callees", "parties"])
def test_an_as_of_that_is_too_low_is_found(world: LogWorld, topic: str):
    """Facts of the partition and reference entries that were in the log before the request, of whatever number."""
    one, two = of_here(2)
    before = world.ends()
    world.put("parties", party("Z")[1])
    world.put(*consent(two))
    world.put("callees", {"event_id": fresh(), "number": two, "at": NOW, "legal_form": "unknown"})
    world.ask(request(one), as_of={topic: before[topic]})
    assert world.violations() == {f.TOO_LOW: 1}


def test_what_came_within_the_tolerance_need_not_be_covered(world: LogWorld):
    """100 ms before the request is too close to tell; 101 ms is not."""
    one, two = of_here(2)
    before = world.ends()
    world.put(*consent(two))
    asked = world.put(REQUEST_TOPIC, request(one), after_ms=100)
    world.publish(world.decide(asked, before), asked.offset)
    assert world.violations() == {}
    assert world.violations(tolerance_ms=99) == {f.TOO_LOW: 1}


def test_an_old_answer_to_a_request_that_is_a_new_one_is_found(world: LogWorld):
    """When memory is over, the same bytes rest on facts that are too old."""
    (of,) = of_here()
    asked, decision = approved(world, of)
    world.now_ms += 301_000
    world.put(*consent(of))
    again = world.put(REQUEST_TOPIC, json.loads(asked.value))
    world.publish(decision, again.offset)
    assert world.violations() == {f.TOO_LOW: 1}


def test_an_as_of_beyond_the_end_is_found(world: LogWorld):
    """Nobody can have applied what is not there."""
    (of,) = of_here()
    world.ask(request(of), as_of={"callees": 1})
    assert world.violations() == {f.BEYOND_END: 1}


def test_a_decision_that_its_facts_do_not_give_is_found(world: LogWorld):
    """Other reasons; the same ones in other bytes."""
    one, two = of_here(2)
    asked = world.put(REQUEST_TOPIC, request(one))
    world.publish(world.decide(asked), asked.offset, reasons=["E_MINOR"])
    asked = world.put(REQUEST_TOPIC, request(two))
    record = world.publish(world.decide(asked), asked.offset)
    world.logs[BLOCKED][-1] = record._replace(value=record.value.replace(b'":"', b'": "', 1))
    assert world.violations() == {f.WRONG_DECISION: 2}


def test_an_approval_that_its_facts_do_not_allow_is_found(world: LogWorld):
    """The worst of them has a name of its own; an approval with a reason to refuse is one, too."""
    one, two = of_here(2)
    _, allowed = approved(world, two)
    asked = world.put(REQUEST_TOPIC, request(one))
    approval = {"decision": "approved", "basis": "OK_CONSENT", "reasons": [], "valid_until": allowed.valid_until}
    world.publish(world.decide(asked), asked.offset, **approval)
    asked = world.put(REQUEST_TOPIC, request(one))
    world.publish(world.decide(asked), asked.offset, **{**approval, "reasons": ["S_STATE_STALE"]})
    tally = world.audit()
    assert dict(tally.violations) == {f.WRONG_APPROVAL: 2}
    assert "the facts say E_NO_BASIS" in {finding.detail for finding in tally.findings}


def test_a_decision_of_a_rejected_request_is_found(world: LogWorld):
    """Whether it could be read or not: rejected is rejected."""
    one, two = of_here(2)
    asked, _ = world.ask(request(one))
    world.reject(asked, "conflict")
    broken = world.put_raw(REQUEST_TOPIC, two.encode(), b"{")
    world.reject(broken, "json")
    world.publish(world.decide(asked), broken.offset, number=two)
    assert world.violations() == {f.REJECTED_DECIDED: 2}


def test_a_wrong_rejection_is_found(world: LogWorld):
    """A request that can be read, a conflict with nothing or with what is forgotten, a broken one with the wrong code."""
    (of,) = of_here()
    world.reject(world.put(REQUEST_TOPIC, request(of)), "format")
    world.reject(world.put(REQUEST_TOPIC, request(of)), "conflict")
    world.reject(world.put_raw(REQUEST_TOPIC, of.encode(), b"{"), "type")
    asked, _ = world.ask(request(of))
    world.now_ms += 310_000
    world.reject(world.put(REQUEST_TOPIC, json.loads(asked.value) | {"subject": "water"}), "conflict")
    assert world.violations() == {f.WRONG_REJECTION: 4}


def test_an_output_without_a_request_is_found(world: LogWorld):
    """No such offset, another request's offset, no offset at all, and a request that belongs elsewhere."""
    one, two = of_here(2)
    asked, decision = world.ask(request(one))
    other, _ = world.ask(request(one))
    (elsewhere,) = numbers(1, 1)
    misplaced = world.put(REQUEST_TOPIC, request(elsewhere))
    for offset in (99, other.offset, None):
        world.publish(decision, offset)
    world.publish(decision, misplaced.offset, number=elsewhere)
    world.publish(decision, asked.offset, number=two)
    assert world.violations() == {f.ORPHAN: 5}


def test_an_unreadable_output_is_found(world: LogWorld):
    """No decision at all, one in the wrong topic, one under another key, one with a date that is none."""
    one, two = of_here(2)
    asked, decision = world.ask(request(one))
    header = [("input-offset", b"%d" % asked.offset)]
    world.put_raw(BLOCKED, one.encode(), b"{}", header)
    world.put_raw(APPROVED, one.encode(), msgspec.json.encode(decision), header)
    world.put_raw(BLOCKED, two.encode(), msgspec.json.encode(decision), header)
    world.publish(decision, asked.offset, decided_at="yesterday")
    assert world.violations() == {f.UNREADABLE: 4}


# --- Windows, reports, parts -----------------------------------------------------------------------------------------------


def test_an_audit_from_offsets_on_knows_what_was_before(world: LogWorld):
    """A repeat of an earlier request passes; faults before the offsets are not told again; a stop since then still needs its recall."""
    one, two = of_here(2)
    world.put(REQUEST_TOPIC, request(two))
    asked, decision = approved(world, one)
    since = {topic: {0: world.end(topic)} for topic in world.logs}
    again = world.put(REQUEST_TOPIC, json.loads(asked.value))
    world.publish(decision, again.offset)
    tally = world.audit(since=since)
    assert dict(tally.violations) == {}
    assert (tally.counts["requests"], tally.counts["repeats"], tally.counts["decisions"]) == (1, 1, 0)
    world.put(*objection(one))
    assert world.violations(since=since) == {f.UNRECALLED: 1}
    assert world.violations() == {f.LOST: 1, f.UNRECALLED: 1}


def test_a_clock_ahead_of_the_broker_s_is_reckoned_with(world: LogWorld):
    """Whether an approval was valid when a stop came is asked of the guard's clock."""
    (of,) = of_here()
    approved(world, of)
    world.put(*objection(of))
    assert world.violations() == {f.UNRECALLED: 1}
    assert world.violations(clock_offset=70 * SECOND) == {}


def test_a_misplaced_record_has_to_be_moved(world: LogWorld):
    """A copy in its own partition has its key and its value; another fact of the number is none, and neither is a null."""
    (elsewhere,) = numbers(1, 1)
    wrong, tally = world.put(*objection(elsewhere)), Tally(keep=1)
    terms, log = world.audited()
    (moved,) = log.misplaced.values()
    assert (moved.topic, moved.partition, moved.offset, moved.home) == ("objections", 0, wrong.offset, 1)
    for copy, found in ((wrong._replace(value=None), 1), (world.put(*objection(elsewhere)), 2), (wrong._replace(offset=7), 2)):
        homes = Homes([moved])
        assert homes.places == {("objections", 1)}
        homes.add("objections", copy)
        homes.check(terms, tally)
        assert tally.violations[f.UNMOVED] == found
    told = world.put_raw("objections", b"another key", encode(objection(elsewhere)[1]))
    _, log = world.audited()
    homes = Homes(log.forwarded)
    homes.add("objections", told._replace(key=elsewhere.encode(), value=None))
    homes.check(terms, tally)
    assert tally.violations[f.UNMOVED] == 2
    homes = Homes([moved])
    homes.check(replace(terms, now_ms=wrong.log_time_ms), tally)
    assert tally.counts["pending"] == 1


def test_positions_count_a_record_as_early_if_a_later_one_is():
    """Log times may go back when a partition gets another leader."""
    positions = Positions(0, 5)
    for offset, log_time_ms in ((0, 10), (1, 30), (2, 20), (4, 40)):
        positions.add(offset, log_time_ms)
    assert [positions.needed(at) for at in (10, 11, 20, 21, 30, 40, 41)] == [0, 1, 1, 3, 3, 3, 5]
    assert not positions.has_gaps_below(3)
    assert positions.has_gaps_below(5)


def test_reports_mask_numbers_and_show_as_many_findings_as_asked(world: LogWorld, capsys: pytest.CaptureFixture[str]):
    """Table and JSON have all counts; no whole number is in either."""
    some = of_here(3)
    for of in some:
        world.put(REQUEST_TOPIC, request(of))
    tally = world.audit()
    print_report(tally, 2)
    text = capsys.readouterr().out
    assert "lost request" in text
    assert "and 1 more" in text
    report = as_json(tally, 2)
    assert report["violations"][f.LOST] == 3
    assert len(report["findings"]) == 2
    assert set(report["counts"]) == set(f.COUNTS)
    for of in some:
        assert of not in text + json.dumps(report)


def test_histories_are_read_by_partition(tmp_path):
    """Lines of other partitions are left out; a line that is none names itself."""
    file = tmp_path / "histories.jsonl"
    lines = [
        {"topic": "objections", "partition": 0, "offset": 3, "sent_at": 1.5, "acked_at": 1.75},
        {"topic": "call-requests", "partition": 1, "offset": 3, "sent_at": 2.5, "acked_at": None},
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "\n")
    histories = Histories.read(file, 0)
    assert (histories.sent_at("objections", 3), histories.acked_at("objections", 3)) == (1.5, 1.75)
    assert histories.sent_at("call-requests", 3) is None
    file.write_text('{"topic": 1}\n')
    with pytest.raises(CannotStart, match="line 1"):
        Histories.read(file, 0)


# --- With a real guard on a real broker ------------------------------------------------------------------------------------


@dataclass
class Guarded:
    """The logs that a real guard left behind: a client of it, its settings, and a request that was approved."""

    client: Client
    settings: Settings
    approved: dict[str, Any]

    async def audit(self, **options: Any) -> Tally:
        """Audit what is there now; nothing is waited for. The guard's clock stood still, and is taken to start at its last answer."""
        return await asyncio.to_thread(run_audit, self.settings, Options(**{"bound_s": 0, "jobs": 1, **options}))


@pytest.fixture(scope="module")
async def guarded(kafka: str, redis_url: str) -> AsyncIterator[Guarded]:
    """A real guard answered some traffic and was stopped."""
    async with running_scene(kafka, redis_url, partitions=PARTITIONS) as guard:
        asked = await traffic(guard)
        offset_s = (guard.clock.instant - time.time_ns() // 1000) / SECOND
        guard.worker.stop()
        yield Guarded(guard.client, guard.client.settings.model_copy(update={"clock_offset_s": offset_s}), asked)


async def traffic(guard: Running) -> dict[str, Any]:
    """Requests of every kind, and facts of every kind; no stop meets an approval that is valid."""
    client, some = guard.client, numbers(40)
    await client.put_all([consent(of) for of in some[:30]])
    await client.put_all([objection(of) for of in some[10:20]])
    requests = [request(of) for of in some]
    await client.put_all([("call-requests", one) for one in requests])
    for one in requests:
        await client.decision(one["request_id"])
    first = requests[0]
    assert (await client.decision(first["request_id"]))["decision"] == "approved"
    await client.put("call-requests", first)
    await client.decisions_of(first["request_id"], 2)
    await client.put("call-requests", {**first, "subject": "water"})
    await client.put_raw("call-requests", some[1].encode(), b"{")
    moved, suspended, between = numbers(3)
    await in_transactions(client, between)
    assert (await ask(client, between))["decision"] == "approved"
    await client.put_raw("consents", moved.encode(), encode(consent(moved)[1]), partition=(home(moved, PARTITIONS) + 1) % PARTITIONS)
    late = request(moved)
    await client.put_raw("call-requests", moved.encode(), encode(late), partition=(home(moved, PARTITIONS) + 1) % PARTITIONS)
    await client.decision(late["request_id"])
    # Broken in a partition that is not the number's: that one is told by a null.
    broken = encode(objection(suspended)[1])
    await client.put_raw("objections", b"another key", broken, partition=(home(suspended, PARTITIONS) + 1) % PARTITIONS)
    await client.put(*consent(suspended))

    async def is_suspended() -> bool:
        return (await ask(client, suspended))["reasons"] == ["S_QUARANTINED"]

    await wait_for(is_suspended, within_s=20)
    await client.put(*release(suspended))
    assert (await ask(client, suspended))["decision"] == "approved"
    await wait_for(lambda: {"conflict", "json"} <= {one["error"]["code"] for one in client.rejected})
    return first


async def in_transactions(client: Client, of: str) -> None:
    """A consent that is committed, and after it an objection that is not: their markers take offsets, too."""
    producer = AIOKafkaProducer(bootstrap_servers=client.settings.kafka, transactional_id=client.settings.topic_prefix)
    await producer.start()
    try:
        for (topic, value), end in ((consent(of), producer.commit_transaction), (objection(of), producer.abort_transaction)):
            await producer.begin_transaction()
            await producer.send_and_wait(client.settings.topic(topic), encode(value), of.encode())
            await end()
    finally:
        await producer.stop()


@pytest.mark.broker
async def test_the_logs_of_a_real_guard_are_clean(guarded: Guarded, tmp_path):
    """Also in two processes; an audit from where the last one ended has nothing to judge."""
    ends = tmp_path / "ends.json"
    tally = await guarded.audit(ends=ends)
    assert dict(tally.violations) == {}, tally.findings
    assert tally.counts["re-decided"] == tally.counts["decisions"] >= 43
    assert tally.counts["repeats"] == tally.counts["conflicts"] == tally.counts["misplaced"] == tally.counts["misplaced facts"] == 1
    assert tally.counts["pending"] == tally.counts["undecidable"] == 0
    assert (await guarded.audit(jobs=2)).counts == tally.counts
    later = await guarded.audit(since=ends)
    assert (later.clean, later.counts["requests"], later.counts["decisions"]) == (True, 0, 0)


@pytest.mark.broker
async def test_faults_planted_in_the_logs_of_a_real_guard_are_found(guarded: Guarded, tmp_path):
    """A lost request, a second decision, an orphan, a missing recall, a record left in a wrong partition, and none of it twice."""
    client, ends = guarded.client, tmp_path / "ends.json"
    of, request_id = guarded.approved["number"], guarded.approved["request_id"]
    record = next(one for one in client.records if json.loads(one.value)["request_id"] == request_id)
    second = json.loads(record.value) | {"warnings": ["W_SERVICE_TINT"]}
    await client.put_raw(APPROVED, of.encode(), encode(second), record.partition, list(record.headers))
    blocked = second | {"decision": "blocked", "valid_until": None}
    await client.put_raw(BLOCKED, of.encode(), encode(blocked), record.partition, [("input-offset", b"1000000")])
    await client.put("call-requests", request(of))
    offset_s = (parse_instant(NOW) - time.time_ns() // 1000) / SECOND
    later = replace(guarded, settings=guarded.settings.model_copy(update={"clock_offset_s": offset_s}))
    await client.put(*objection(of))
    topic, value = objection(of)
    await client.put_raw(topic, of.encode(), encode(value), partition=(record.partition + 1) % PARTITIONS)
    tally = await later.audit(bound_s=600, ends=ends)
    assert dict(tally.violations) == {f.SECOND: 1, f.WRONG_DECISION: 1, f.ORPHAN: 1}
    assert tally.counts["pending"] == 4
    tally = await later.audit(since=ends)
    assert dict(tally.violations) == {f.LOST: 1, f.UNRECALLED: 2, f.UNMOVED: 1}


@pytest.mark.broker
async def test_the_command_exits_by_what_it_finds(guarded: Guarded, kafka: str, tmp_path):
    """0 clean, 1 violations, 3 cannot start with the reason; standard output is JSON or a table, and nothing else."""
    settings, file = guarded.settings, tmp_path / "from.json"
    environment = os.environ | {
        "RINGFENCE_KAFKA": kafka,
        "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
        "RINGFENCE_PARTITIONS": str(settings.partitions),
        "RINGFENCE_CLOCK_OFFSET_S": str(settings.clock_offset_s),
    }

    async def audited(*options: str, **variables: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "ops.cli", "audit", "--jobs", "1", *options]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=environment | variables)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    await guarded.audit(ends=file)
    code, out, err = await audited("--from", str(file), "--json")
    assert (code, json.loads(out)["clean"], err) == (0, True, "")
    of = guarded.approved["number"]
    await guarded.client.put("call-requests", request(of))
    code, out, err = await audited("--from", str(file), "--bound-s", "0")
    assert (code, err) == (1, "")
    assert "lost request" in out
    assert of not in out
    for options, variables, reason in (
        ((), {"RINGFENCE_TOPIC_PREFIX": "nobody."}, "lacks topics: nobody."),
        ((), {"RINGFENCE_PARTITIONS": "3"}, "has 4 partitions, not 3"),
        ((), {"RINGFENCE_KAFKA": "127.0.0.1:1"}, "no Kafka answers at 127.0.0.1:1"),
        ((), {"RINGFENCE_CLOCK_OFFSET_S": "", "RINGFENCE_CLOCK_START": NOW}, "RINGFENCE_CLOCK_OFFSET_S"),
        (("--from", str(tmp_path / "none")), {}, "--from: No such file"),
        (("--histories", str(tmp_path / "none")), {}, "--histories: No such file"),
    ):
        code, out, err = await audited(*options, **variables)
        assert (code, out) == (3, ""), err
        assert reason in err
