"""A decision: approved or blocked, with its basis or reasons, as diallers read it."""

from __future__ import annotations

from typing import Literal

import msgspec

from rules.codes import REASON_ORDER
from rules.findings import Findings
from rules.instants import format_instant
from rules.requests import CallRequest
from rules.rulebook import Rulebook


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One record of approved-calls or blocked-calls; field names and meaning are the wire contract's.

    ``as_of`` gives the next offset of each fact and reference topic (name without prefix) when the decision was taken; empty at the
    offline door.
    """

    request_id: str
    number: str
    campaign_id: str
    advertiser_id: str
    intermediary_id: str | None
    call_centre_id: str | None
    dial_at: str
    responsible_id: str
    decision: Literal["approved", "blocked"]
    kind: Literal["decision", "recall"]
    basis: str | None
    reasons: list[str]
    warnings: list[str]
    missing: list[str]
    rules: list[str]
    evidence: list[str]
    regime: str | None
    rulebook: str
    decided_at: str
    valid_until: str | None
    as_of: dict[str, int]

    @property
    def approved(self) -> bool:
        """Whether the call may be made, until ``valid_until``."""
        return self.decision == "approved"


def approved(
    request: CallRequest,
    book: Rulebook,
    *,
    basis: str,
    findings: Findings,
    warnings: list[str],
    regime: str,
    now: int,
    valid_until: int,
    as_of: dict[str, int],
) -> Decision:
    """An approval on a basis, valid until an instant (exclusive)."""
    return _decision(
        request, book, basis=basis, reasons=[], findings=findings, warnings=warnings, missing=[], regime=regime, now=now,
        valid_until=format_instant(valid_until), as_of=as_of,
    )  # fmt: skip


def blocked(
    request: CallRequest,
    book: Rulebook,
    *,
    findings: Findings,
    warnings: list[str],
    missing: list[str],
    regime: str | None,
    now: int,
    as_of: dict[str, int],
) -> Decision:
    """A blocked call with every reason found, in the contract's order."""
    reasons = sorted(findings.codes, key=REASON_ORDER.__getitem__)
    return _decision(
        request, book, basis=None, reasons=reasons, findings=findings, warnings=warnings, missing=missing, regime=regime, now=now,
        valid_until=None, as_of=as_of,
    )  # fmt: skip


def _decision(  # noqa: PLR0913  # a record has as many fields as the contract gives it
    request: CallRequest,
    book: Rulebook,
    *,
    basis: str | None,
    reasons: list[str],
    findings: Findings,
    warnings: list[str],
    missing: list[str],
    regime: str | None,
    now: int,
    valid_until: str | None,
    as_of: dict[str, int],
) -> Decision:
    return Decision(
        request_id=request.request_id,
        number=request.number,
        campaign_id=request.campaign_id,
        advertiser_id=request.advertiser_id,
        intermediary_id=request.intermediary_id,
        call_centre_id=request.call_centre_id,
        dial_at=request.dial_at_text,
        responsible_id=request.responsible_id,
        decision="blocked" if basis is None else "approved",
        kind="decision",
        basis=basis,
        reasons=reasons,
        warnings=warnings,
        missing=missing,
        rules=sorted(findings.rules),
        evidence=sorted(findings.evidence),
        regime=regime,
        rulebook=book.version,
        decided_at=format_instant(now),
        valid_until=valid_until,
        as_of=as_of,
    )
