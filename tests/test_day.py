"""The made-up day: the same for the same seed, readable, and varied enough to be worth watching."""

import itertools
import random
from collections import Counter, defaultdict
from typing import cast

import pytest

from config.rulebook import load_rulebook
from ops.day import Day, Event
from rules.decide import decide
from rules.e164 import is_e164
from rules.errors import InputError
from rules.events import FACT_MODELS, REFERENCE_MODELS, NumberEvent, ReferenceEntry, read_event
from rules.facts import NumberFacts
from rules.instants import SECOND
from rules.reference import Reference
from rules.requests import CallRequest

NUMBERS, REQUESTS = 1500, 4000
TICK = 3000  # microseconds between two events


def clock(day: Day):
    ticks = itertools.count(day.start, TICK)
    return lambda: next(ticks)


def whole_day(seed: int, live: int = 2000) -> list[Event]:
    day = Day(seed=seed, numbers=200)
    return [*day.reference(), *day.facts(), *itertools.islice(day.live(random.Random(seed), clock(day)), live)]


def test_the_same_seed_gives_the_same_day():
    assert whole_day(7) == whole_day(7)


def test_another_seed_gives_another_day_with_other_numbers():
    one, other = whole_day(7), whole_day(8)
    assert one != other
    facts = [{event.key for event in day if event.topic == "callees"} for day in (one, other)]
    assert not facts[0] & facts[1]


def test_every_event_is_readable_but_those_broken_on_purpose():
    """All topics of facts that a day has are there; no field is unknown to the contract."""
    topics, broken = Counter[str](), 0
    for event in whole_day(3, live=20_000):
        topics[event.topic] += 1
        if event.sound:
            _, unknown = read_event(event.topic, event.key.encode(), event.encoded())
            assert unknown == 0, event
        else:
            broken += 1
            with pytest.raises(InputError):
                read_event(event.topic, event.key.encode(), event.encoded())
    assert broken > 10
    assert set(topics) == {"call-requests", *FACT_MODELS, *REFERENCE_MODELS} - {"quarantine-releases"}


def test_numbers_are_dutch_and_belong_to_one_person_each():
    day = Day(seed=5, numbers=5000)
    callees = [event for event in day.facts() if event.topic == "callees"]
    numbers = {event.key for event in callees}
    assert len(numbers) == len(callees) == 5000
    assert all(is_e164(number) and number.startswith("+31") and len(number) == 12 for number in numbers)
    assert {number[:4] for number in numbers} == {"+316", "+312", "+311", "+313"}


def test_the_day_goes_on_for_ever_with_the_same_number_of_people():
    """Newcomers take the place of others, so neither the list nor the memory grows."""
    day = Day(seed=1, numbers=100)
    list(day.facts())
    called = [event.key for event in itertools.islice(day.live(random.Random(1), clock(day)), 20_000) if event.request_id]
    assert len(set(called[:2000])) < 300
    assert len(set(called)) > 500
    assert len(day._people) == 100


def test_a_request_is_to_be_dialled_within_half_a_minute():
    day = Day(seed=2, numbers=100)
    for event in itertools.islice(day.live(random.Random(2), lambda: day.start), 2000):
        if event.request_id is not None:
            request = cast("CallRequest", read_event(event.topic, event.key.encode(), event.encoded())[0])
            assert 0 <= request.dial_at - day.start < 30 * SECOND


class Guard:
    """The rules alone, in memory."""

    def __init__(self) -> None:
        self.book = load_rulebook()
        self.reference = Reference()
        self.numbers = defaultdict(NumberFacts)

    def take(self, event: Event, now: int):
        record, _ = read_event(event.topic, event.key.encode(), event.encoded())
        if event.topic in REFERENCE_MODELS:
            self.reference.put(event.topic, cast("ReferenceEntry", record))
        elif isinstance(record, CallRequest):
            return decide(record, self.numbers[record.number], self.reference, self.book, now)
        else:
            self.numbers[event.key].apply(cast("NumberEvent", record))
        return None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_good_third_is_approved_and_the_reasons_vary(seed):
    day, guard = Day(seed=seed, numbers=NUMBERS), Guard()
    for event in itertools.chain(day.reference(), day.facts()):
        guard.take(event, day.start)
    now = clock(day)
    codes, bases, approved, requests = Counter[str](), Counter[str](), 0, 0
    for event in day.live(random.Random(seed), now):
        if not event.sound:
            continue
        decision = guard.take(event, now())
        if decision is None:
            continue
        requests += 1
        codes.update(decision.reasons)
        if decision.approved:
            approved += 1
            bases[str(decision.basis)] += 1
            day.note_approved(decision)
        if requests == REQUESTS:
            break
    assert 0.25 < approved / requests < 0.55
    assert len(codes) >= 15
    assert len(bases) >= 6
    assert {"E_OBJECTION", "E_NO_BASIS", "E_REL_ABOLISHED", "E_CONSENT_NOT_NAMED", "P_ATTEMPT_CAP", "P_COOLDOWN"} <= codes.keys()
    assert max(codes.values()) < requests / 3


def test_outcomes_follow_the_approvals_that_were_noted():
    day, guard = Day(seed=4, numbers=300), Guard()
    for event in itertools.chain(day.reference(), day.facts()):
        guard.take(event, day.start)
    noted, outcomes = set(), []
    for event in itertools.islice(day.live(random.Random(4), lambda: day.start), 4000):
        if event.topic == "call-outcomes" and "request_id" in event.value:  # a newcomer's history has none
            outcomes.append(event)
        decision = guard.take(event, day.start) if event.sound else None
        if decision is not None and decision.approved:
            noted.add(decision.request_id)
            day.note_approved(decision)
    live = {event.value["request_id"] for event in outcomes}
    assert live
    assert live <= noted


def test_a_day_needs_people():
    with pytest.raises(ValueError, match="numbers"):
        Day(numbers=0)
