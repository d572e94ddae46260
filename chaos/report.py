"""What a storm found, as JSON for comparisons and as Markdown for people, and whether it was weathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import msgspec

from chaos.inject import Injected
from chaos.recovery import Recovery
from chaos.schedule import KINDS

_APPROVED_SHARE_MIN = 0.2
_RECALLS_MIN = 100
#: A run shorter than this many minutes needs one recall only.
_LONG_MINUTES = 5.0


def faults_as_json(injected: Sequence[Injected], costs: Sequence[Recovery]) -> list[dict[str, Any]]:
    """Each fault with what it cost; ``costs[i]`` belongs to ``injected[i]``."""
    return [
        {
            "kind": fault.kind,
            "planned_s": fault.planned_s,
            "started_at": round(fault.started_at, 3),
            "ended_at": round(fault.ended_at, 3),
            "detail": fault.detail,
            "recovery_s": _rounded(cost.recovery_s),
            "longest_wait_s": _rounded(cost.longest_wait_s),
        }
        for fault, cost in zip(injected, costs, strict=True)
    ]


def per_kind(faults: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Count, recovery and longest wait of each kind, those that did not occur included; seconds."""
    table = dict[str, dict[str, Any]]()
    for kind in KINDS:
        of_kind = [fault for fault in faults if fault["kind"] == kind]
        recovered = [fault["recovery_s"] for fault in of_kind if fault["recovery_s"] is not None]
        waited = [fault["longest_wait_s"] for fault in of_kind if fault["longest_wait_s"] is not None]
        table[kind] = {
            "count": len(of_kind),
            "recovery_median_s": _rounded(median(recovered)) if recovered else None,
            "recovery_max_s": max(recovered, default=None),
            "longest_wait_s": max(waited, default=None),
            "not_recovered": len(of_kind) - len(recovered),
        }
    return table


def told_by(audit: bytes) -> dict[str, Any]:
    """What ``ringfence audit --json`` printed; empty where it printed nothing that can be read."""
    try:
        told: dict[str, Any] = msgspec.json.decode(audit, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
    return told


def shortcomings(report: Mapping[str, Any]) -> list[str]:
    """Why the storm was not weathered, in sentences; empty if it was.

    Args:
        report: ``options``, ``per_kind``, ``totals``, ``audit_exit_code`` and ``audit`` of a run.
    """
    audit, found = report["audit"], []
    if report["audit_exit_code"] != 0:
        violations = ", ".join(f"{kind} {count:,}" for kind, count in audit.get("violations", {}).items() if count)
        found.append(f"the audit is not clean (exit code {report['audit_exit_code']}): {violations or 'see audit.log'}")
    if not report["options"]["calm"]:
        found += [f"no fault of kind {kind} happened" for kind, figures in report["per_kind"].items() if not figures["count"]]
    # In a short one on a busy machine most requests may have been refused while workers caught up.
    is_long = report["options"]["minutes"] >= _LONG_MINUTES
    approved_share = audit.get("approved_share") or 0.0
    if approved_share < _APPROVED_SHARE_MIN and is_long:
        found.append(f"{approved_share:.0%} of the decisions are approvals, want {_APPROVED_SHARE_MIN:.0%} or more")
    wanted = _RECALLS_MIN if is_long else 1
    recalls = audit.get("counts", {}).get("recalls", 0)
    if recalls < wanted:
        found.append(f"{recalls} recalls, want {wanted} or more: too few objections met a live approval")
    return found


def as_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    options, audit = report["options"], report["audit"]
    lines = [
        f"# Storm of {options['minutes']:g} minutes at {options['rate']:g} requests a second, seed {options['seed']}",
        "",
        "Weathered." if not report["shortcomings"] else "Not weathered:",
        *[f"- {sentence}" for sentence in report["shortcomings"]],
        "",
        "| fault | count | recovery median s | recovery max s | longest wait s | not recovered |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, figures in report["per_kind"].items():
        cells = [figures[name] for name in ("count", "recovery_median_s", "recovery_max_s", "longest_wait_s", "not_recovered")]
        lines.append(f"| {kind} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines += _table("load and workers", report["totals"])
    latency = {f"recall latency {name} ms": value for name, value in (audit.get("recall_latency_ms") or {}).items() if name != "count"}
    lines += _table("audit", {"approved_share": audit.get("approved_share"), **latency, **audit.get("counts", {})})
    lines += _table("violation", {kind: count for kind, count in audit.get("violations", {}).items() if count})
    return "\n".join([*lines, "", f"Again: `{report['again']}`", ""])


def _table(title: str, figures: Mapping[str, Any]) -> list[str]:
    rows = [f"| {_words(name)} | {_cell(value)} |" for name, value in figures.items()]
    return ["", f"| {title} | |", "| --- | ---: |", *rows] if rows else []


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
