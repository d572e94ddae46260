"""What the rules find: codes with the rule that gave each and the facts behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

#: A decision code and the id of the rule that gave it.
Finding = tuple[str, str]


@dataclass(slots=True)
class Candidate:
    """A fact that may carry a call: good if nothing failed.

    ``ends_at`` is the first instant at which the basis no longer holds, None if it has no end of its own.
    """

    event_ids: tuple[str, ...]
    basis: str = ""
    rules: tuple[str, ...] = ()
    failures: list[Finding] = field(default_factory=list)
    ends_at: int | None = None

    @property
    def good(self) -> bool:
        """Nothing failed."""
        return not self.failures


def longest(candidates: Iterable[Candidate]) -> Candidate:
    """The candidate that holds longest; of equal ones the first by event_id, so that the order in which facts came does not matter."""
    ordered = sorted(candidates, key=lambda one: one.event_ids)
    return max(ordered, key=lambda one: (one.ends_at is None, one.ends_at or 0))


@dataclass(slots=True)
class Findings:
    """Blocking codes found so far, with the rules and facts behind them."""

    codes: set[str] = field(default_factory=set)
    rules: set[str] = field(default_factory=set)
    evidence: set[str] = field(default_factory=set)

    def add(self, code: str, rule_id: str, evidence: Iterable[str] = ()) -> None:
        """Report one code."""
        self.codes.add(code)
        self.rules.add(rule_id)
        self.evidence.update(evidence)

    def add_all(self, found: Iterable[Finding]) -> None:
        """Report codes behind which there is no fact of the number's own."""
        for code, rule_id in found:
            self.codes.add(code)
            self.rules.add(rule_id)

    def add_failures(self, candidates: Iterable[Candidate]) -> None:
        """Report all that failed in candidates none of which is good."""
        for candidate in candidates:
            for code, rule_id in candidate.failures:
                self.add(code, rule_id, candidate.event_ids)
