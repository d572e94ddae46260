"""The dated rulebook: law as data, and the flat view of it that one day of calls is judged by.

A :class:`Rulebook` holds every rule and parameter with its history; :meth:`Rulebook.on` gives what is in force on a local day
(Europe/Amsterdam) for a member of the trade body or for anybody else. Files are read by ``config.rulebook``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, time
from functools import lru_cache
from typing import Literal, cast

from rules.errors import RulebookGap

Severity = Literal["LAW", "CODE", "POLICY"]
Level = Literal["V1", "V2", "V3", "V4"]
Regime = Literal["R1", "R2", "R3"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule or value was read, and how sure that reading is (V1 statute ... V4 our inference)."""

    ref: str
    level: Level
    checked: date


@dataclass(frozen=True, slots=True)
class Rule:
    """One period of one rule; a rule that changed has several, oldest first.

    ``first_day`` and ``last_day`` are inclusive local days; ``first_day_members`` is the earlier first day for members of the trade
    body (codes of 2020 and 2024). ``gives`` lists the decision codes that the rule can put on a decision.
    """

    id: str
    summary: str
    severity: Severity
    gives: tuple[str, ...]
    first_day: date
    last_day: date | None
    first_day_members: date | None
    natural_persons_only: bool
    sources: tuple[Source, ...]

    def in_force(self, day: date, *, member: bool) -> bool:
        """Whether the rule binds a call on ``day``."""
        first = self.first_day_members if member and self.first_day_members else self.first_day
        return first <= day and (self.last_day is None or day <= self.last_day)


@dataclass(frozen=True, slots=True)
class Hours:
    """Calling hours of a day, half open: calls may start from ``opens`` and before ``closes`` (local time)."""

    opens: time
    closes: time


@dataclass(frozen=True, slots=True)
class Parameters:
    """Every parameter of the rulebook as it stands on one day. Units are in the names; months are calendar months."""

    hours_weekday: Hours
    hours_saturday: Hours
    hours_service: Hours
    early_stop_days: frozenset[tuple[int, int]]  # (month, day)
    early_stop_closes: time
    remembrance_days: frozenset[tuple[int, int]]
    mourning_days: frozenset[date]
    holidays_fixed: frozenset[tuple[int, int]]
    holidays_easter_offsets: frozenset[int]  # days from Easter Sunday
    kings_day: tuple[int, int]  # (month, day); the day before where it is a Sunday
    customer_term_max_months: int
    anniversary_inclusive: bool
    grandfathered_before: date
    charity_grandfathering: bool
    consent_first_contact_months: int
    consent_giver_age_min: int
    cli_reachable_months: int
    solicited_validity_days: int
    solicited_agreed_minutes: int
    scrub_validity_days: int
    minor_age_max: int
    periodical_issues_min: int
    lottery_articles: frozenset[str]
    eea_countries: frozenset[str]
    attempts_per_day_max: int
    unanswered_max: int
    unanswered_window_days: int
    soft_refusal_cooldown_days: int
    dropped_call_cooldown_hours: int
    abandoned_share_max: float
    code_on_foreign_numbers: bool
    approval_ttl_s: int
    max_request_age_s: int
    max_dial_ahead_s: int


@dataclass(frozen=True, slots=True)
class Dated:
    """One value of a parameter, in force from ``first_day`` until the next entry's first day."""

    first_day: date
    value: object
    severity: Severity
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LawOfDay:
    """What binds a call on one local day: the regime, the rules in force by id, and the parameters."""

    day: date
    regime: Regime
    rules: dict[str, Rule]
    parameters: Parameters

    def __contains__(self, rule_id: str) -> bool:
        return rule_id in self.rules


@dataclass(frozen=True)
class Rulebook:
    """All rules and parameters with their history.

    ``name`` is the jurisdiction (``nl``); ``digest`` is the first 16 hex digits of the SHA-256 of the effective content, so an
    operator's override changes it; ``version`` is what decisions carry: ``nl@3f9a...``.
    """

    name: str
    digest: str
    regimes: tuple[tuple[date, Regime], ...]
    rules: tuple[Rule, ...]
    parameters: dict[str, tuple[Dated, ...]] = field(repr=False)

    @property
    def version(self) -> str:
        """Name and digest, as decisions carry it."""
        return f"{self.name}@{self.digest}"

    def on(self, day: date, *, member: bool) -> LawOfDay:
        """The law of one local day (Europe/Amsterdam).

        Args:
            day: local calendar day of the call.
            member: the responsible party is a member of the trade body, whose members were bound earlier by the codes.

        Raises:
            RulebookGap: no regime covers the day; the caller blocks with S_STATE_UNAVAILABLE.
        """
        return _law_of_day(self, day, member)

    @property
    def most_valid_s(self) -> int:
        """Seconds after its decision that an approval may be valid, at any date: dialled as far ahead as may be, and then held."""
        return sum(max(cast("int", entry.value) for entry in self.parameters[name]) for name in ("max_dial_ahead_s", "approval_ttl_s"))

    __hash__ = object.__hash__
    __eq__ = object.__eq__


# A worker sees a handful of days; a replay of years sees a few thousand.
@lru_cache(maxsize=4096)
def _law_of_day(book: Rulebook, day: date, member: bool) -> LawOfDay:  # noqa: FBT001  # a cache's key has no names
    regime = next((name for first, name in reversed(book.regimes) if first <= day), None)
    if regime is None:
        raise RulebookGap(f"no regime of rulebook {book.name} covers {day.isoformat()}")
    values = {}
    for name, entries in book.parameters.items():
        entry = next((entry for entry in reversed(entries) if entry.first_day <= day), None)
        if entry is None:
            raise RulebookGap(f"parameter {name} of rulebook {book.name} has no value on {day.isoformat()}")
        values[name] = entry.value
    in_force = {rule.id: rule for rule in book.rules if rule.in_force(day, member=member)}
    return LawOfDay(day, regime, in_force, Parameters(**values))  # type: ignore[arg-type]  # the loader checked the types
