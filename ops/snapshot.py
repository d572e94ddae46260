"""The figures of a guard at one moment: what a view shows, and ``watch --json`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ops.histogram import Latency

#: How latencies were measured: from due to read by the demo's own clock, between two log times of one broker, between the time
#: stamps of two producers, or not yet.
LatencyKind = Literal["due_to_read", "log_times", "producer_times", "none"]
Role = Literal["advertiser", "intermediary", "call centre", "campaign"]


@dataclass(frozen=True, slots=True)
class PartyCount:
    """Decisions about one party's calls, or one campaign's."""

    role: Role
    party_id: str
    name: str
    approved: int
    blocked: int

    @property
    def total(self) -> int:
        """All decisions."""
        return self.approved + self.blocked

    @property
    def share(self) -> float:
        """Part that was approved, 0 to 1."""
        return self.approved / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures at one moment.

    ``per_second`` has the decisions of the last whole seconds, oldest first. ``reasons``, ``bases`` and ``rejected`` are
    sorted by count; a blocked call may have several reasons. ``contradictions`` are second decisions that differ: none, ever.
    """

    seconds: float
    decided_at: str | None
    approved: int
    blocked: int
    recalls: int
    repeats: int
    contradictions: int
    unreadable: int
    rate: float
    per_second: list[int]
    reasons: list[tuple[str, int]]
    bases: list[tuple[str, int]]
    rejected: list[tuple[str, int]]
    parties: list[PartyCount]
    campaigns: list[PartyCount]
    latency_kind: LatencyKind
    latency: Latency | None
    latency_last_minute: Latency | None

    @property
    def decisions(self) -> int:
        """Requests decided: each counted once."""
        return self.approved + self.blocked

    def as_json(self) -> dict[str, Any]:
        """The figures as one JSON object; times in milliseconds."""

        def times(latency: Latency | None) -> dict[str, float | int] | None:
            if latency is None:
                return None
            return {"p50": round(latency.p50 * 1000, 2), "p99": round(latency.p99 * 1000, 2), "count": latency.count}

        return {
            "seconds": round(self.seconds, 1),
            "decided_at": self.decided_at,
            "decisions": self.decisions,
            "approved": self.approved,
            "blocked": self.blocked,
            "recalls": self.recalls,
            "repeats": self.repeats,
            "contradictions": self.contradictions,
            "unreadable": self.unreadable,
            "decisions_per_s": round(self.rate, 1),
            "reasons": dict(self.reasons),
            "bases": dict(self.bases),
            "rejected": dict(self.rejected),
            "parties": [
                {"role": one.role, "party_id": one.party_id, "name": one.name, "approved": one.approved, "blocked": one.blocked}
                for one in (*self.parties, *self.campaigns)
            ],
            "latency_kind": self.latency_kind,
            "latency_ms": times(self.latency),
            "latency_last_minute_ms": times(self.latency_last_minute),
        }
