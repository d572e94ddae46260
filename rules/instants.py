"""Instants, local days and calendar arithmetic.

An *instant* is an ``int``: microseconds since 1970-01-01T00:00:00Z. A *day* is an ``int``: the proleptic ordinal of a local calendar
day in Europe/Amsterdam (``date.toordinal``). Both compare and subtract at the speed of integers, pack small, and cannot be mistaken
for a naive ``datetime``.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE = _EPOCH.replace(tzinfo=None)
_MICROSECOND = timedelta(microseconds=1)
#: The forms in which instants and days are written, as regular expressions of the whole text; not every text of the form exists.
INSTANT_PATTERN = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,30})?([Zz]|[+-][0-9]{2}:[0-5][0-9])"
DAY_PATTERN = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_RFC3339 = re.compile(INSTANT_PATTERN, re.ASCII)
_DATE = re.compile(DAY_PATTERN, re.ASCII)
_LAST_ORDINAL = date.max.toordinal()
# Local conversion must stay within the years that datetime knows, also a day to either side.
_FIRST_INSTANT = (datetime(1, 1, 3, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_INSTANT = (datetime(9999, 12, 29, tzinfo=UTC) - _EPOCH) // _MICROSECOND


def parse_instant(text: str) -> int:
    """Read an RFC 3339 instant; digits beyond microseconds are cut off.

    Raises:
        ValueError: no RFC 3339 text, no offset, an impossible date or time, or a year that local days cannot be computed for.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("want an RFC 3339 instant with an offset, like 2026-11-23T13:00:00Z")
    moment = datetime.fromisoformat(text.upper())
    instant = (moment - _EPOCH) // _MICROSECOND
    if not _FIRST_INSTANT <= instant <= _LAST_INSTANT:
        raise ValueError("the year is out of range")
    return instant


@lru_cache(maxsize=4096)  # all decisions of a turn carry the same decided_at
def format_instant(instant: int) -> str:
    """Write an instant as RFC 3339 in UTC with microseconds only where there are any: ``2026-11-23T13:00:00Z``."""
    return (_EPOCH_WITHOUT_ZONE + timedelta(microseconds=instant)).isoformat() + "Z"


def parse_day(text: str) -> int:
    """Read a calendar date ``2026-11-23`` as a day.

    Raises:
        ValueError: another form, or an impossible date.
    """
    if _DATE.fullmatch(text) is None:
        raise ValueError("want a date like 2026-11-23")
    return date.fromisoformat(text).toordinal()


@lru_cache(maxsize=65_536)
def _offset_of_quarter(quarter: int) -> int:
    """Offset of Amsterdam from UTC, in microseconds, during a quarter of an hour since 1970.

    Since 1940 the zone changes on whole quarters of an hour only. A fact older than that may be a quarter off, which no rule can see.
    """
    moment = _EPOCH + timedelta(microseconds=quarter * 15 * MINUTE)
    offset = moment.astimezone(AMSTERDAM).utcoffset()
    assert offset is not None  # ZoneInfo always has one
    return offset // _MICROSECOND


def local_clock(instant: int) -> tuple[int, int]:
    """The local day of an instant and the microseconds since its local midnight by the wall clock (rule T-08)."""
    days, since_midnight = divmod(instant + _offset_of_quarter(instant // (15 * MINUTE)), DAY)
    return days + _EPOCH_DAY, since_midnight


def local_day(instant: int) -> int:
    """The local day of an instant."""
    return local_clock(instant)[0]


_EPOCH_DAY = date(1970, 1, 1).toordinal()


@lru_cache(maxsize=4096)
def at_local_time(day: int, since_midnight: int) -> int:
    """The instant at which the wall clock of a local day shows a time, given in microseconds since midnight.

    Meant for day borders and calling hours; none of them falls into the hour that a change of summer time repeats or skips.
    """
    moment = datetime.fromordinal(day) + timedelta(microseconds=since_midnight)
    return (moment.replace(tzinfo=AMSTERDAM).astimezone(UTC) - _EPOCH) // _MICROSECOND


def end_of_day(day: int) -> int:
    """The first instant after a local day; for days at the end of the year 9999 and beyond, an instant near that end."""
    return at_local_time(min(day + 1, _LAST_ORDINAL - 1), 0)


@lru_cache(maxsize=65_536)  # a sixth of decide() was spent here and in format_instant: the same days and terms come again and again
def add_months(day: int, months: int) -> int:
    """The same day of the month, ``months`` calendar months on; where the month is too short, its last day.

    Three years from 29 February end on 28 February; 31 August 2023 plus 18 months is 28 February 2025. A result past the year 9999 is
    that year's last day.
    """
    start = date.fromordinal(day)
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    if year > date.max.year:
        return _LAST_ORDINAL
    month += 1
    return date(year, month, min(start.day, monthrange(year, month)[1])).toordinal()


@lru_cache(maxsize=512)
def easter_sunday(year: int) -> int:
    """Easter Sunday of a year of the Gregorian calendar (the anonymous Gregorian computus)."""
    golden = year % 19
    century, in_century = divmod(year, 100)
    leap_centuries, century_rest = divmod(century, 4)
    lunar_correction = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leap_centuries - lunar_correction + 15) % 30
    leap_years, year_rest = divmod(in_century, 4)
    weekday = (32 + 2 * century_rest + 2 * leap_years - epact - year_rest) % 7
    adjust = (golden + 11 * epact + 22 * weekday) // 451
    month, day = divmod(epact + weekday - 7 * adjust + 114, 31)
    return date(year, month, day + 1).toordinal()
