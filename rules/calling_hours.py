"""Days and hours: rules T-01 to T-09, by the wall clock of Europe/Amsterdam."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time
from functools import lru_cache

from rules.call import Call
from rules.findings import Finding, Findings
from rules.instants import HOUR, MINUTE, SECOND, at_local_time, easter_sunday
from rules.rulebook import LawOfDay

_SATURDAY, _SUNDAY = 5, 6
_MIDNIGHT = 24 * HOUR


@dataclass(frozen=True, slots=True)
class CallingDay:
    """What the calendar says of one local day: findings that hold all day, and the hours, in microseconds since midnight.

    ``stops_early_at`` is set on the days on which calls end early; it is ``closes`` otherwise.
    """

    closed: tuple[Finding, ...]
    opens: int
    stops_early_at: int
    closes: int
    rule_id: str


@lru_cache(maxsize=4096)
def calling_day(law: LawOfDay) -> CallingDay:
    """The calling hours of the day that the law was compiled for."""
    parameters, day = law.parameters, law.day
    weekday = day.weekday()
    month_day = (day.month, day.day)
    closed = list[Finding]()
    if "T-03" in law and weekday == _SUNDAY:
        closed.append(("E_DAY_SUNDAY", "T-03"))
    holiday = is_holiday(law)
    if "T-04" in law and holiday:
        closed.append(("E_DAY_HOLIDAY", "T-04"))
    if "T-06" in law and (month_day in parameters.remembrance_days or day in parameters.mourning_days):
        closed.append(("E_DAY_SPECIAL", "T-06"))
    rule_id = "T-02" if weekday == _SATURDAY else "T-01"
    if rule_id not in law:
        return CallingDay(tuple(closed), 0, _MIDNIGHT, _MIDNIGHT, rule_id)
    hours = parameters.hours_saturday if weekday == _SATURDAY else parameters.hours_weekday
    closes = since_midnight(hours.closes)
    working_day = weekday < _SATURDAY and not holiday
    early = "T-05" in law and working_day and month_day in parameters.early_stop_days
    stops_early_at = min(since_midnight(parameters.early_stop_closes), closes) if early else closes
    return CallingDay(tuple(closed), since_midnight(hours.opens), stops_early_at, closes, rule_id)


def is_holiday(law: LawOfDay) -> bool:
    """Whether the day is one on which nobody is called: fixed days, days around Easter, King's Day (the day before if a Sunday)."""
    parameters, day = law.parameters, law.day
    if (day.month, day.day) in parameters.holidays_fixed:
        return True
    if day.toordinal() - easter_sunday(day.year) in parameters.holidays_easter_offsets:
        return True
    kings_day = date(day.year, *parameters.kings_day).toordinal()
    if date.fromordinal(kings_day).weekday() == _SUNDAY:
        kings_day -= 1
    return day.toordinal() == kings_day


def report_telemarketing(call: Call, findings: Findings, waived_until: int | None) -> int | None:
    """Report day and hour of a telemarketing call.

    Args:
        call: the call under judgement.
        findings: where the codes go. The hour is reported only where the day itself is no reason.
        waived_until: end of the time that the person agreed for this call, None if there is none.

    Returns:
        The first instant at which the calling window is over; None if no window binds.
    """
    if not call.under_conduct_code:
        return None
    today = calling_day(call.law)
    window_closes = at_local_time(call.day, today.stops_early_at)
    if waived_until is not None:
        in_hours = not today.closed and today.opens <= call.since_midnight < today.stops_early_at
        return max(waived_until, window_closes) if in_hours else waived_until
    for code, rule_id in today.closed:
        findings.add(code, rule_id)
    if today.stops_early_at <= call.since_midnight and today.stops_early_at < today.closes:
        findings.add("E_DAY_SPECIAL", "T-05")
    elif not today.closed and not today.opens <= call.since_midnight < today.closes:
        findings.add("E_TIME_WINDOW", today.rule_id)
    return window_closes


def report_service(call: Call, findings: Findings) -> int:
    """Report the hour of a service call, which has hours of its own on every day (policy). Returns the end of the window."""
    hours = call.law.parameters.hours_service
    if not since_midnight(hours.opens) <= call.since_midnight < since_midnight(hours.closes):
        findings.add("E_TIME_WINDOW", "S-07")
    return at_local_time(call.day, since_midnight(hours.closes))


def since_midnight(clock: time) -> int:
    """A wall clock time as microseconds since midnight."""
    return clock.hour * HOUR + clock.minute * MINUTE + clock.second * SECOND
