"""The operator's policies: rules D-01 and D-02, per number and responsible party over all campaigns. Never law."""

from __future__ import annotations

from rules.call import Call
from rules.findings import Findings
from rules.instants import DAY, HOUR, local_day

_UNANSWERED = frozenset({"no_answer", "busy", "abandoned", "silent"})
_DROPPED = frozenset({"abandoned", "silent"})


def report(call: Call, findings: Findings) -> None:
    """Report attempt caps, cooling-off after a refusal or a dropped call, and a dialler that drops too many calls."""
    parameters = call.law.parameters
    today, unanswered, refused, dropped = list[str](), list[str](), list[str](), list[str]()
    for outcome in call.facts.outcomes:
        if outcome.responsible_id != call.responsible_id or outcome.at >= call.instant:
            continue
        age = call.instant - outcome.at
        if local_day(outcome.at) == call.day:
            today.append(outcome.event_id)
        if outcome.result in _UNANSWERED and age <= parameters.unanswered_window_days * DAY:
            unanswered.append(outcome.event_id)
        if outcome.result == "not_interested" and age <= parameters.soft_refusal_cooldown_days * DAY:
            refused.append(outcome.event_id)
        if outcome.result in _DROPPED and age <= parameters.dropped_call_cooldown_hours * HOUR:
            dropped.append(outcome.event_id)
    if len(today) >= parameters.attempts_per_day_max:
        findings.add("P_ATTEMPT_CAP", "D-01", today)
    if len(unanswered) >= parameters.unanswered_max:
        findings.add("P_ATTEMPT_CAP", "D-01", unanswered)
    if refused:
        findings.add("P_COOLDOWN", "D-02", refused)
    if dropped:
        findings.add("P_COOLDOWN", "D-01", dropped)
    if call.request.dialling_mode == "predictive":
        campaign = call.reference.campaigns.get(call.request.campaign_id)
        share = campaign.abandoned_share_24h if campaign is not None else None
        if share is None or share > parameters.abandoned_share_max:
            findings.add("P_ABANDON_RATE", "D-01")
