"""What an audit counts and what it finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Final

LOST: Final = "lost request"
SECOND: Final = "second decision"
DIFFERING: Final = "differing repeat"
CONFLICT: Final = "conflict decided"
REVOKED: Final = "approval repeated after recall"
UNREPORTED: Final = "unreported fact"
UNMOVED: Final = "misplaced and not moved"
REJECTED_DECIDED: Final = "decision of a rejected request"
WRONG_REJECTION: Final = "wrong rejection"
ORPHAN: Final = "output without request"
UNREADABLE: Final = "unreadable output"
OBJECTED: Final = "approval after objection"
UNRECALLED: Final = "missing recall"
UNEXPLAINED: Final = "unexplained recall"
TOO_LOW: Final = "as_of too low"
BEYOND_END: Final = "as_of beyond end"
WRONG_APPROVAL: Final = "wrong approval"
WRONG_DECISION: Final = "wrong decision"

#: Every kind of violation and what it means, in the order of a report.
KINDS: Final[dict[str, str]] = {
    LOST: "a request without an answer, or one that cannot be read and is not in rejected-events",
    UNREPORTED: "a fact that cannot be read and is not in rejected-events",
    UNMOVED: "a record in a partition that is not its number's, and not published again in its own; or one that "
    "suspends a number there, which was not told",
    SECOND: "one request was answered with two different decisions",
    DIFFERING: "a repeat was answered with another decision than the first, while that was to be remembered",
    CONFLICT: "a repeat with other content got a decision, while the first was to be remembered",
    REVOKED: "a repeat that came after the recall was answered with the approval",
    REJECTED_DECIDED: "a request was rejected and decided",
    WRONG_REJECTION: "a request that can be read was rejected, and no earlier one contradicts it; or by the wrong code",
    ORPHAN: "a decision or recall that answers no request",
    UNREADABLE: "a record of the outputs that is no decision, or stands under another number or in the wrong topic",
    OBJECTED: "a request produced after a stop was acknowledged was approved without it (G1)",
    UNRECALLED: "a stop met a valid approval, and no recall follows (G3)",
    UNEXPLAINED: "a recall that nothing calls for",
    TOO_LOW: "a decision did not wait for what the log held before its request",
    BEYOND_END: "a decision claims to know more than the log holds",
    WRONG_APPROVAL: "the facts named by as_of do not allow this approval",
    WRONG_DECISION: "the facts named by as_of give another record",
}

#: Every count and what it means, in the order of a report.
COUNTS: Final[dict[str, str]] = {
    "requests": "call requests in the partition of their number that can be read",
    "decisions": "different decisions",
    "approvals": "of them approved",
    "blocked": "of them blocked",
    "recalls": "different recalls",
    "recalls beyond the first": "of them further ones of the same request, which double faults may bring",
    "recalls without approval": "of them of a request whose approval is not in the log",
    "cautious recalls": "of them for a stop that was there twice, or about another subject: a guard that was rebuilt cannot tell",
    "repeats": "requests answered with the record of an earlier one",
    "copies": "records that stand in the log again, byte for byte",
    "rejected": "requests in rejected-events because they cannot be read",
    "rejected facts": "facts in rejected-events because they cannot be read",
    "conflicts": "requests in rejected-events because an earlier one contradicts them",
    "misplaced": "requests in a partition that is not their number's; they are judged in their own",
    "misplaced facts": "facts in a partition that is not their number's; they count in their own",
    "outputs of older requests": "whose request is no longer in the log, or before --from",
    "stops": "objections, withdrawals, used opt-outs and broken records of numbers that were asked for",
    "approvals met by a stop": "valid approvals that needed a recall",
    "pending": "answers and recalls that may still come within the bound",
    "re-decided": "decisions that were taken again and gave the same bytes",
    "other rulebook": "decisions by another rulebook, not taken again",
    "refusals": "decisions with an S_STATE_ code, not taken again; they approve nothing",
    "undecidable": "decisions that differ where the log no longer holds what they rest on",
    "undecided": "cases that log times cannot put in order",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation. ``topic`` is without prefix, ``number`` is masked."""

    kind: str
    topic: str
    partition: int
    offset: int
    request_id: str | None
    number: str
    detail: str

    def as_json(self) -> dict[str, object]:
        """The finding as JSON has it."""
        return asdict(self)


@dataclass(slots=True)
class Tally:
    """Counts and findings of a partition, or of all.

    ``findings`` keeps the first ``keep`` of each kind; ``violations`` counts them all. ``latencies_ms`` are those of recalls.
    ``pending_from`` is the lowest offset, by topic and partition, that could not be judged for good yet.
    """

    keep: int
    counts: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    latencies_ms: list[int] = field(default_factory=list)
    pending_from: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.violations

    def found(self, finding: Finding) -> None:
        """Count a violation."""
        self.violations[finding.kind] += 1
        if self.violations[finding.kind] <= self.keep:
            self.findings.append(finding)

    def pending(self, topic: str, partition: int, offset: int) -> None:
        """Count something that may still come; the next audit has to look from there."""
        self.counts["pending"] += 1
        place = topic, partition
        self.pending_from[place] = min(offset, self.pending_from.get(place, offset))

    def add(self, other: Tally) -> None:
        """Take in the tally of another partition."""
        self.counts.update(other.counts)
        self.violations.update(other.violations)
        self.findings += other.findings
        self.latencies_ms += other.latencies_ms
        for place, offset in other.pending_from.items():
            self.pending_from[place] = min(offset, self.pending_from.get(place, offset))
