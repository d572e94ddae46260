"""From when on a reason is gone by itself: found by taking the decision again at later times, so that no rule is told twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import msgspec

from rules.calling_hours import calling_day, since_midnight
from rules.decide import decide
from rules.errors import RulebookGap
from rules.facts import NumberFacts
from rules.instants import at_local_time, local_day
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import Rulebook

_CALENDAR = frozenset({"E_DAY_SUNDAY", "E_DAY_HOLIDAY", "E_DAY_SPECIAL", "E_TIME_WINDOW"})
#: Reasons that time alone takes away.
PASSING = _CALENDAR | {"P_ATTEMPT_CAP", "P_COOLDOWN", "E_CONSENT_NOT_PRIOR"}
_MOST_DAYS = 100


def clears_at(code: str, request: CallRequest, facts: NumberFacts, reference: Reference, book: Rulebook, after: int) -> int | None:
    """The first opening hour at which a reason is gone and the calendar is no hindrance either, if nothing else happens.

    Args:
        code: a reason of the decision.
        request: what was asked.
        facts: what was known of the number.
        reference: parties, campaigns and caller numbers.
        book: the rulebook.
        after: instant for which it was decided.

    Returns:
        An instant within a hundred days; None if there is none, or the reason is not one that passes.
    """
    if code not in PASSING:
        return None
    hindrances = _CALENDAR | {code}
    for instant in _openings(book, after):
        later = decide(msgspec.structs.replace(request, dial_at=instant), facts, reference, book, instant)
        if hindrances.isdisjoint(later.reasons):
            return instant
    return None


def _openings(book: Rulebook, after: int) -> Iterator[int]:
    """When calls and service calls may begin on the days to come."""
    for day in range(local_day(after), local_day(after) + _MOST_DAYS):
        try:
            law = book.on(date.fromordinal(day), member=False)
        except RulebookGap:
            return
        for opens in sorted({calling_day(law).opens, since_midnight(law.parameters.hours_service.opens)}):
            instant = at_local_time(day, opens)
            if instant > after:
                yield instant
