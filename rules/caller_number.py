"""The caller number shown: rules N-01 to N-06."""

from __future__ import annotations

from rules.call import Call
from rules.events import CallerNumber
from rules.findings import Findings
from rules.instants import add_months


def shown_number(call: Call) -> CallerNumber | None:
    """The entry of the number shown; None if it is withheld (a shown number that is not on file never gets this far)."""
    cli = call.request.cli
    if cli.withheld or cli.number is None:
        return None
    return call.reference.caller_numbers.get(cli.number)


def report_false(call: Call, findings: Findings) -> None:
    """Any call at all: the number shown belongs to the responsible party or to the call centre that dials (N-02)."""
    shown = shown_number(call)
    if shown is None or "N-02" not in call.law:
        return
    if shown.owner_id is None or shown.owner_id not in (call.responsible_id, call.request.call_centre_id):
        findings.add("E_CLI_FALSE", "N-02")


def report_withheld(call: Call, findings: Findings) -> None:
    """Telemarketing: the number is not withheld (N-01); until 2021-06-30 that was the code's rule, for natural persons only."""
    rule = call.law.rules.get("N-01")
    if rule is None or not call.request.cli.withheld:
        return
    if not rule.natural_persons_only or (call.natural_person and call.under_conduct_code):
        findings.add("E_CLI_WITHHELD", "N-01")


def report_unreachable(call: Call, findings: Findings) -> None:
    """Telemarketing: the number can be called back, at no unreasonable cost, for six months, and is published (N-03 to N-06)."""
    shown = shown_number(call)
    if shown is None or not call.under_conduct_code:
        return
    law = call.law
    if "N-03" in law and shown.callable_back is not True:
        findings.add("E_CLI_NOT_CALLABLE", "N-03")
    reachable_until = add_months(call.day, law.parameters.cli_reachable_months)
    if "N-05" in law and shown.in_use_until is not None and shown.in_use_until < reachable_until:
        findings.add("E_CLI_NOT_CALLABLE", "N-05")
    if "N-04" in law and shown.tariff not in ("normal", "free"):
        findings.add("E_CLI_PREMIUM", "N-04")
    if "N-06" in law and call.responsible_id not in (shown.published_by or ()):
        findings.add("E_CLI_NOT_PUBLISHED", "N-06")
