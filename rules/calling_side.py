"""The calling side of a call: all that does not depend on who is called, and is the same for the calls of a campaign on a day.

Rules that look at nothing else are asked once for each calling side (:meth:`CallingSide.once`). A worker sees a few thousand of them a
day and judges millions of calls. The answers are kept with the reference entries that they rest on, and dropped when one of those
changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from rules.events import CallerNumber, Campaign, Party
from rules.reference import Reference
from rules.requests import CallRequest, Cli, DiallingMode, Promotion, Purpose
from rules.rulebook import LawOfDay

_T = TypeVar("_T")
#: More than that are no campaigns, but somebody who tries numbers out.
_MOST_KEPT = 50_000


class CallingSide:
    """Who calls, for whom, how and under which law. What the request says of the callee or of the offer is not here."""

    __slots__ = (
        "_found", "advertiser_id", "call_centre_id", "campaign_id", "cli", "dialling_mode", "has_subject", "intermediary_id", "law",
        "promotion", "purpose", "reference", "responsible_id", "service_necessary",
    )  # fmt: skip

    def __init__(self, request: CallRequest, reference: Reference, law: LawOfDay) -> None:
        self.law = law
        self.reference = reference
        self.advertiser_id = request.advertiser_id
        self.intermediary_id = request.intermediary_id
        self.call_centre_id = request.call_centre_id
        self.responsible_id = request.responsible_id
        self.campaign_id = request.campaign_id
        self.cli: Cli = request.cli
        self.purpose: Purpose = request.purpose
        self.promotion: Promotion | None = request.promotion
        self.service_necessary = request.service_necessary
        self.has_subject = request.subject is not None
        self.dialling_mode: DiallingMode = request.dialling_mode
        self._found: dict[Callable[[CallingSide], Any], Any] = {}

    def once(self, rule: Callable[[CallingSide], _T]) -> _T:
        """What a rule says of this calling side. It is asked the first time only, so it must look at nothing else."""
        found = self._found
        if rule not in found:
            found[rule] = rule(self)
        return cast("_T", found[rule])

    @property
    def responsible(self) -> Party:
        """The party whose call it is; it is on file (step 0 of the procedure)."""
        return self.reference.parties[self.responsible_id]

    @property
    def campaign(self) -> Campaign:
        """The campaign; it is on file."""
        return self.reference.campaigns[self.campaign_id]

    @property
    def shown(self) -> CallerNumber | None:
        """The entry of the number shown; None if it is withheld (a shown number that is not on file never gets this far)."""
        if self.cli.withheld or self.cli.number is None:
            return None
        return self.reference.caller_numbers.get(self.cli.number)


def calling_side(request: CallRequest, reference: Reference, law: LawOfDay) -> CallingSide:
    """The calling side of a request on a day; the same object for every request that does not differ in it."""
    cli = request.cli
    key = (
        law, request.advertiser_id, request.intermediary_id, request.call_centre_id, request.campaign_id, cli.number, cli.withheld,
        request.purpose, request.promotion, request.service_necessary, request.subject is None, request.dialling_mode,
    )  # fmt: skip
    kept = reference.worked_out
    side: CallingSide | None = kept.get(key)
    if side is None:
        if len(kept) >= _MOST_KEPT:
            kept.clear()
        side = kept[key] = CallingSide(request, reference, law)
    return side
