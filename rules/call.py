"""One call under judgement: the request together with everything that the rules look at."""

from __future__ import annotations

from dataclasses import dataclass

from rules.calling_side import CallingSide
from rules.e164 import is_dutch
from rules.events import Party
from rules.facts import NumberFacts
from rules.records import BUSINESS_PERSONS, LEGAL_PERSONS, Callee
from rules.reference import Reference
from rules.requests import CallRequest
from rules.rulebook import LawOfDay


@dataclass(slots=True)
class Call:
    """A call request at its instant of judgement.

    ``instant`` is J = max(dial_at, now), in microseconds; ``day`` its local day, ``since_midnight`` the wall clock then, in
    microseconds. ``side`` is all of it that does not depend on the callee. ``responsible`` is the party whose call it is and ``chain``
    are the parties whose objections count: the responsible one and the advertiser.
    """

    request: CallRequest
    side: CallingSide
    facts: NumberFacts
    reference: Reference
    law: LawOfDay
    instant: int
    day: int
    since_midnight: int
    responsible: Party
    callee: Callee | None

    @property
    def responsible_id(self) -> str:
        """Id of the party whose call it is."""
        return self.responsible.party_id

    @property
    def chain(self) -> tuple[str, ...]:
        """The responsible party and, where an intermediary calls, the advertiser."""
        advertiser_id = self.request.advertiser_id
        return (advertiser_id,) if self.responsible_id == advertiser_id else (self.responsible_id, advertiser_id)

    @property
    def by_intermediary(self) -> bool:
        """An intermediary calls at its own risk and needs its own basis (rule P-02)."""
        return self.request.intermediary_id is not None

    @property
    def automated(self) -> bool:
        """No human on the calling side (rule S-03)."""
        return self.request.dialling_mode == "automated_voice"

    @property
    def legal_form(self) -> str:
        """Legal form of the callee; ``unknown`` without a callee fact."""
        return self.callee.legal_form if self.callee is not None else "unknown"

    @property
    def natural_person(self) -> bool:
        """Whether the callee counts as a natural person: all whom no fact proves to be a legal person (rule S-04)."""
        return self.legal_form not in LEGAL_PERSONS

    @property
    def in_business(self) -> bool:
        """Whether the callee is shown to act in a profession or business (rules S-11, S-13)."""
        return self.legal_form in LEGAL_PERSONS or self.legal_form in BUSINESS_PERSONS

    @property
    def under_conduct_code(self) -> bool:
        """Whether the code's conduct rules are applied.

        The code binds calls to natural persons on Dutch numbers (rule S-05); to legal persons its conduct rules are applied as a policy
        (T-09). An operator may have it applied to foreign numbers too.
        """
        return not self.natural_person or self.law.parameters.code_on_foreign_numbers or is_dutch(self.request.number)

    def callee_evidence(self) -> list[str]:
        """Ids of the facts that say who the callee is."""
        return [fact.event_id for fact in self.facts.callees]
