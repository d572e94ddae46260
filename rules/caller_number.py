"""The caller number shown: rules N-01 to N-06."""

from __future__ import annotations

from rules.call import Call
from rules.calling_side import CallingSide
from rules.findings import Finding, Findings
from rules.instants import add_months


def report_false(call: Call, findings: Findings) -> None:
    """Any call at all: the number shown belongs to the responsible party or to the call centre that dials (N-02)."""
    findings.add_all(call.side.once(_false))


def _false(side: CallingSide) -> list[Finding]:
    shown = side.shown
    if shown is None or "N-02" not in side.law:
        return []
    owned = shown.owner_id is not None and shown.owner_id in (side.responsible_id, side.call_centre_id)
    return [] if owned else [("E_CLI_FALSE", "N-02")]


def report_withheld(call: Call, findings: Findings) -> None:
    """Telemarketing: the number is not withheld (N-01); until 2021-06-30 that was the code's rule, for natural persons only."""
    if not call.request.cli.withheld:
        return
    rule = call.law.rules.get("N-01")
    if rule is not None and (not rule.natural_persons_only or (call.natural_person and call.under_conduct_code)):
        findings.add("E_CLI_WITHHELD", "N-01")


def report_unreachable(call: Call, findings: Findings) -> None:
    """Telemarketing: the number can be called back, at no unreasonable cost, for six months, and is published (N-03 to N-06)."""
    if call.under_conduct_code:
        findings.add_all(call.side.once(_unreachable))


def _unreachable(side: CallingSide) -> list[Finding]:
    shown, law, found = side.shown, side.law, list[Finding]()
    if shown is None:
        return found
    if "N-03" in law and shown.callable_back is not True:
        found.append(("E_CLI_NOT_CALLABLE", "N-03"))
    reachable_until = add_months(law.day.toordinal(), law.parameters.cli_reachable_months)
    if "N-05" in law and shown.in_use_until is not None and shown.in_use_until < reachable_until:
        found.append(("E_CLI_NOT_CALLABLE", "N-05"))
    if "N-04" in law and shown.tariff not in ("normal", "free"):
        found.append(("E_CLI_PREMIUM", "N-04"))
    if "N-06" in law and side.responsible_id not in (shown.published_by or ()):
        found.append(("E_CLI_NOT_PUBLISHED", "N-06"))
    return found
