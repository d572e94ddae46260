"""What holds for every call, whatever the facts: looked for in generated lines over all three regimes, each check on many of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any, cast

import msgspec
import pytest

from config.rulebook import load_rulebook
from rules.codes import REASON_ORDER
from rules.decide import decide
from rules.decision import Decision
from rules.events import REFERENCE_MODELS, REQUEST_TOPIC, NumberEvent, ReferenceEntry, validate
from rules.facts import NumberFacts
from rules.instants import SECOND, format_instant, local_day, parse_instant
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import Rulebook
from tests.generate import Value, offline_line, read_text, utc_text

SEED = 7
LINES = 2500

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(NumberFacts).decode


@cache
def book() -> Rulebook:
    """The rulebook, read once."""
    return load_rulebook()


@dataclass
class Known:
    """A line taken apart: what is on file, the number's facts as they came, and the request."""

    case: str
    request: Value
    facts: list[tuple[str, Value]]
    reference: Reference
    events: list[NumberEvent]

    def decide(self, events: list[NumberEvent] | None = None, facts: NumberFacts | None = None, **changed: Any) -> Decision:
        """Decide with these events instead, or with facts already merged; other fields of the request as given."""
        request = cast("CallRequest", validate(REQUEST_TOPIC, self.request | changed))
        merged = facts or merge(self.events if events is None else events)
        return decide(request, merged, self.reference, book(), request.dial_at)


def event(topic: str, value: Value) -> NumberEvent:
    """A fact as the rules read it."""
    return cast("NumberEvent", validate(topic, value))


def merge(events: list[NumberEvent]) -> NumberFacts:
    """The state that facts come to."""
    facts = NumberFacts()
    for one in events:
        facts.apply(one)
    return facts


def take_apart(line: Value) -> Known:
    """Facts about other numbers are left out; of repeated event_ids all are kept."""
    reference, facts = Reference(), []
    for fact in line["facts"]:
        topic, value = fact["topic"], fact["value"]
        if value is None:
            reference.remove(topic, fact["key"])
        elif topic in REFERENCE_MODELS:
            reference.put(topic, cast("ReferenceEntry", validate(topic, value)))
        elif value["number"] == line["request"]["number"]:
            facts.append((topic, value))
    return Known(line["case"], line["request"], facts, reference, [event(*fact) for fact in facts])


@cache
def all_known() -> list[Known]:
    """The lines that every check looks at."""
    return [take_apart(offline_line(SEED, position)) for position in range(LINES)]


def of_distinct_ids(known: Known) -> list[tuple[str, Value]]:
    """The facts without those whose event_id came before with other content: their order is the one that matters."""
    seen = set[tuple[str, str]]()
    first = []
    for topic, value in known.facts:
        if (topic, value["event_id"]) not in seen:
            first.append((topic, value))
        seen.add((topic, value["event_id"]))
    return first


def rng_of(known: Known) -> random.Random:
    """Chance that depends on the case alone."""
    return random.Random(known.case)


# --- never an approval through one fact more -----------------------------------------------------------------------------------------


def more_objections(known: Known) -> Iterator[Value]:
    """Objections in all their forms, before, at and after the call and its facts."""
    rng, request = rng_of(known), known.request
    instants = [request["dial_at"], *(value["at"] for _, value in known.facts)]
    for serial in range(6):
        moved = read_text(rng.choice(instants)) + timedelta(seconds=rng.choice((-86_400, -1, 0, 1, 86_400)))
        yield {
            "event_id": f"new-{serial}",
            "number": request["number"],
            "at": utc_text(moved),
            "advertiser_id": rng.choice((None, request["advertiser_id"], "S", "B")),
            "intermediary_id": rng.choice((None, request["intermediary_id"], "I")),
            "call_centre_id": rng.choice((None, request["call_centre_id"], "X")),
            "scope": rng.choice((None, "called_for", "whole_call_centre")),
            "subject": rng.choice((None, request["subject"], "energy", "insurance")),
        }


def test_adding_an_objection_never_turns_blocked_into_approved():
    wrong = []
    for known in all_known():
        before = known.decide()
        if before.approved:
            continue
        wrong += [
            (known.case, value)
            for value in more_objections(known)
            if known.decide([*known.events, event("objections", value)]).approved
        ]
    assert wrong == []


def test_adding_a_withdrawal_never_turns_blocked_into_approved():
    wrong = []
    for known in all_known():
        if known.decide().approved:
            continue
        for value in more_objections(known):
            named = rng_of(known).choice((None, [], ["A"], ["I"], ["S", "B"]))
            withdrawn = {
                "event_id": value["event_id"],
                "number": value["number"],
                "at": value["at"],
                "kind": "withdrawn",
                "party_ids": named,
            }
            if known.decide([*known.events, event("consents", withdrawn)]).approved:
                wrong.append((known.case, withdrawn))
    assert wrong == []


def test_an_objected_outcome_or_a_used_opt_out_never_turns_blocked_into_approved():
    wrong = []
    for known in all_known():
        if known.decide().approved:
            continue
        base = {name: known.request[name] for name in ("number", "advertiser_id")} | {"at": next(more_objections(known))["at"]}
        objected = event("call-outcomes", base | {"event_id": "new", "campaign_id": "c-1", "result": "objected"})
        opted_out = event("relationships", base | {"event_id": "new", "relationship_id": "r-new", "optout_used": True})
        # The new relationship shows nothing that could carry a call.
        if known.decide([*known.events, opted_out]).approved:
            wrong.append((known.case, "opt-out used"))
        if known.decide([*known.events, objected]).approved:
            wrong.append((known.case, "objected"))
    assert wrong == []


# --- order and repetition ------------------------------------------------------------------------------------------------------------


def test_a_decision_never_depends_on_the_order_of_facts():
    """Facts of distinct event_ids in any order; equal instants of callees and relationships are among them."""
    wrong = []
    for known in all_known():
        events = [event(*fact) for fact in of_distinct_ids(known)]
        as_given, rng = known.decide(events), rng_of(known)
        for _ in range(3):
            rng.shuffle(events)
            if known.decide(events) != as_given:
                wrong.append(known.case)
    assert wrong == []


def test_a_decision_never_depends_on_the_repetition_of_facts():
    """Every fact twice, the repeats mixed in anywhere behind the first of their event_id."""
    wrong = []
    for known in all_known():
        repeated = list(known.events)
        rng = rng_of(known)
        for one in known.events:
            repeated.insert(rng.randint(repeated.index(one) + 1, len(repeated)), one)
        if known.decide(repeated) != known.decide():
            wrong.append(known.case)
    assert wrong == []


def tied(topic: str, known: Known) -> list[NumberEvent]:
    """The facts of a number, those of a topic given the same ``at`` and, if they are relationships, the same id."""
    facts = of_distinct_ids(known)
    same: Value = {"at": next((value["at"] for name, value in facts if name == topic), None)}
    if topic == "relationships":
        same["relationship_id"] = "r"
    return [event(name, value | same if name == topic else value) for name, value in facts]


@pytest.mark.parametrize("topic", ["callees", "relationships"])
def test_the_order_of_facts_with_equal_instants_does_not_matter(topic):
    wrong, ties = [], 0
    for known in all_known():
        events = tied(topic, known)
        mine = [one for one in events if isinstance(one, type(event_of(topic)))]
        others = [one for one in events if one not in mine]
        if not 2 <= len(mine) <= 4:
            continue
        ties += 1
        decisions = [known.decide([*others, *order]) for order in itertools.permutations(mine)]
        if any(one != decisions[0] for one in decisions):
            wrong.append(known.case)
    assert wrong == []
    assert ties > 50


def event_of(topic: str) -> NumberEvent:
    """A fact of a topic with as little as it may hold."""
    least: dict[str, Value] = {"callees": {}, "relationships": {"relationship_id": "r", "advertiser_id": "A"}}
    return event(topic, {"event_id": "e", "number": "+31612345678", "at": "2020-01-01T00:00:00Z"} | least[topic])


@pytest.mark.parametrize("topic", ["callees", "relationships"])
def test_of_equal_instants_what_allows_less_counts(topic):
    """Where one of two tied facts alone leads to a block, both together do not lead to an approval for which they are the basis."""
    wrong = []
    for known in all_known():
        events = tied(topic, known)
        mine = [one for one in events if isinstance(one, type(event_of(topic)))]
        others = [one for one in events if one not in mine]
        if len(mine) < 2:
            continue
        both = known.decide([*others, *mine])
        if both.approved and not all(known.decide([*others, one]).approved for one in mine):
            wrong.append(known.case)
    assert wrong == []


def test_merging_in_two_batches_with_the_state_stored_in_between_is_merging_at_once():
    wrong = []
    for known in all_known():
        cut = rng_of(known).randint(0, len(known.events))
        stored = _decode(_encode(merge(known.events[:cut])))
        for one in known.events[cut:]:
            stored.apply(one)
        if stored != merge(known.events) or known.decide(facts=stored) != known.decide():
            wrong.append(known.case)
    assert wrong == []


def test_storing_the_state_keeps_decisions_equal():
    wrong = []
    for known in all_known():
        facts = merge(known.events)
        if _decode(_encode(facts)) != facts or known.decide(facts=_decode(_encode(facts))) != known.decide():
            wrong.append(known.case)
    assert wrong == []


# --- what is not shown never helps ---------------------------------------------------------------------------------------------------

#: Optional fields that a rule asks for: without them a fact allows no more. Left out are those that only take away where they are
#: shown (valid_until, giver_age, age, age_suspected_minor, deceased, do_not_call_registered_on, optout_used, ended_on, started_on,
#: person_ref of a callee, first_contact_within_months) and an objection's own limits.
HELPFUL = {
    "consents": ("evidence", "verified_by", "person_ref"),
    "relationships": ("informed", "optout_offered", "paid", "number_given_in_sale", "rationale", "collected_on", "subjects", "kind"),
    "invitations": ("party_id", "subject", "origin", "capture", "agreed_at"),
    "callees": ("legal_form", "published_for_marketing", "local_rules_met", "country"),
    "parties": ("wok_article", "issues_per_year"),
    "campaigns": ("objection_offered", "abandoned_share_24h"),
    "caller-numbers": ("owner_id", "callable_back", "tariff", "published_by"),
}


@pytest.mark.parametrize("spoilt", [None, "left out"])
def test_leaving_out_an_optional_fact_never_turns_blocked_into_approved(spoilt):
    wrong = []
    for position in range(LINES):
        known = all_known()[position]
        if known.decide().approved:
            continue
        line = offline_line(SEED, position)
        for place, fact in enumerate(line["facts"]):
            for name in HELPFUL.get(fact["topic"], ()):
                value = fact["value"]
                if value is None or value.get(name) is None or value.get("kind") == "withdrawn":
                    continue
                less = {key: item for key, item in value.items() if key != name} | ({} if spoilt else {name: None})
                facts = [*line["facts"][:place], fact | {"value": less}, *line["facts"][place + 1 :]]
                if take_apart(line | {"facts": facts}).decide().approved:
                    wrong.append((known.case, fact["topic"], name))
    assert wrong == []


# --- what a decision says ------------------------------------------------------------------------------------------------------------


def test_an_approval_holds_until_its_last_instant_and_no_longer_than_a_minute():
    """Asked again for the last microsecond before valid_until, with the same facts, the answer is the same approval.

    Facts that happen later than the call are left out: in the minute that follows they would be news.
    """
    wrong, early = [], 0
    for known in all_known():
        judged_at = parse_instant(known.request["dial_at"])
        events = [one for one in known.events if one.at < judged_at]
        decision = known.decide(events)
        if not decision.approved:
            assert decision.valid_until is None
            continue
        until = parse_instant(cast("str", decision.valid_until))
        early += until < judged_at + 60 * SECOND
        again = known.decide(events, dial_at=format_instant(until - 1))
        if not judged_at < until <= judged_at + 60 * SECOND or not again.approved:
            wrong.append((known.case, decision.basis, decision.valid_until, again.reasons))
    assert wrong == []
    assert early > 5


def test_blocked_calls_have_reasons_in_the_contracts_order_each_once_and_approved_ones_have_none():
    for known in all_known():
        decision = known.decide()
        assert decision.approved == (decision.basis is not None) == (not decision.reasons), known.case
        assert decision.reasons == sorted(set(decision.reasons), key=REASON_ORDER.__getitem__), known.case
        assert len(set(decision.warnings)) == len(decision.warnings), known.case
        assert bool(decision.missing) == ("E_FACTS_INCOMPLETE" in decision.reasons), known.case
        if decision.missing:
            assert [code for code in decision.reasons if not code.startswith("S_")] == ["E_FACTS_INCOMPLETE"], known.case


#: Before 2021-07-01 the contract has consents, withdrawals and intermediaries judged by rules that law.md dates later.
READ_EARLY = {"C-01", "C-05", "C-13", "P-02"}


def test_the_rules_of_a_decision_are_in_force_on_its_day():
    wrong = []
    for known in all_known():
        decision = known.decide()
        if decision.reasons == ["S_STATE_UNAVAILABLE"]:
            continue
        day = date.fromordinal(local_day(parse_instant(decision.dial_at)))
        law = book().on(day, member=known.reference.is_member(decision.responsible_id))
        read_early = READ_EARLY if law.regime == "R1" else set()
        assert decision.regime == law.regime
        assert decision.rules == sorted(set(decision.rules)), known.case
        out_of_force = [rule_id for rule_id in decision.rules if rule_id not in law and rule_id not in read_early]
        if out_of_force or not (decision.rules or decision.missing):
            wrong.append((known.case, day.isoformat(), decision.reasons or decision.basis, decision.rules, out_of_force))
    assert wrong == []


def test_the_rules_of_a_decision_can_give_its_codes():
    """Every reason and the basis come from a rule that says it gives them."""
    wrong = []
    for known in all_known():
        decision = known.decide()
        if decision.reasons == ["S_STATE_UNAVAILABLE"] or decision.missing:
            continue
        day = date.fromordinal(local_day(parse_instant(decision.dial_at)))
        law = book().on(day, member=known.reference.is_member(decision.responsible_id))
        if law.regime == "R1":
            continue  # there the rulebook's lists follow law.md, and READ_EARLY stands for what it dates later
        gives = {code for rule_id in decision.rules for code in (law.rules[rule_id].gives if rule_id in law else ())}
        if without_rule := {*decision.reasons, *([decision.basis] if decision.basis else [])} - gives:
            wrong.append((known.case, without_rule, decision.rules))
    assert wrong == []


def test_the_evidence_of_a_decision_is_facts_of_its_number():
    for known in all_known():
        decision = known.decide()
        assert decision.evidence == sorted(set(decision.evidence)), known.case
        assert set(decision.evidence) <= {value["event_id"] for _, value in known.facts}, known.case


def test_deciding_twice_gives_the_same():
    assert all(known.decide() == known.decide() for known in all_known()[:500])
