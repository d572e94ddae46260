"""The operator's policies: rules D-01 and D-02, per number and responsible party over all campaigns. Never law."""

from __future__ import annotations

from rules.call import Call
from rules.calling_side import CallingSide
from rules.findings import Finding, Findings
from rules.instants import DAY, HOUR, local_day
from rules.records import Outcome

_UNANSWERED = frozenset({"no_answer", "busy", "abandoned", "silent"})
_REFUSED = frozenset({"not_interested"})
_DROPPED = frozenset({"abandoned", "silent"})


def report(call: Call, findings: Findings) -> None:
    """Report attempt caps, cooling-off after a refusal or a dropped call, and a dialler that drops too many calls."""
    parameters = call.law.parameters
    past = [one for one in call.facts.outcomes if one.responsible_id == call.responsible_id and one.at < call.instant]
    if past:
        today = [one for one in past if local_day(one.at) == call.day]
        unanswered = _within(call, past, _UNANSWERED, parameters.unanswered_window_days * DAY)
        refused = _within(call, past, _REFUSED, parameters.soft_refusal_cooldown_days * DAY)
        dropped = _within(call, past, _DROPPED, parameters.dropped_call_cooldown_hours * HOUR)
        _report(findings, "P_ATTEMPT_CAP", "D-01", today, parameters.attempts_per_day_max)
        _report(findings, "P_ATTEMPT_CAP", "D-01", unanswered, parameters.unanswered_max)
        _report(findings, "P_COOLDOWN", "D-02", refused, 1)
        _report(findings, "P_COOLDOWN", "D-01", dropped, 1)
    findings.add_all(call.side.once(_drops_too_many))


def _drops_too_many(side: CallingSide) -> list[Finding]:
    share = side.campaign.abandoned_share_24h
    if side.dialling_mode != "predictive" or (share is not None and share <= side.law.parameters.abandoned_share_max):
        return []
    return [("P_ABANDON_RATE", "D-01")]


def _within(call: Call, outcomes: list[Outcome], results: frozenset[str], age: int) -> list[Outcome]:
    """The outcomes of some kinds that are at most so old (microseconds), to the instant."""
    return [one for one in outcomes if one.result in results and call.instant - one.at <= age]


def _report(findings: Findings, code: str, rule_id: str, outcomes: list[Outcome], at_least: int) -> None:
    if len(outcomes) >= at_least:
        findings.add(code, rule_id, (one.event_id for one in outcomes))
