"""Counts what a guard decides while it happens: the figures behind ``ringfence demo`` and ``ringfence watch``."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import Literal

import msgspec

from ops.histogram import Histogram
from ops.snapshot import LatencyKind, PartyCount, Role, Snapshot

#: Decisions remembered to tell a repeated record from a second decision: five minutes at 300 requests a second, about 25 MB.
REMEMBERED = 100_000
#: Parties of a role, and campaigns, counted by id; whoever comes later is counted as ``others``. Bounds the memory where ids are made
#: up per call.
PARTIES_MAX = 1000
OTHERS = "others"
#: Seconds of history for the sparkline.
HISTORY_S = 120
_RATE_OVER_S = 5
# The last minute is kept as twelve histograms of five seconds each.
_SLICE_S = 5
_SLICES = 12
_ROLES: tuple[Role, ...] = ("advertiser", "intermediary", "call centre", "campaign")


class Seen(msgspec.Struct, frozen=True):
    """The fields of a decision that are counted."""

    request_id: str
    number: str
    campaign_id: str
    advertiser_id: str
    intermediary_id: str | None
    call_centre_id: str | None
    decision: Literal["approved", "blocked"]
    kind: Literal["decision", "recall"]
    basis: str | None
    reasons: list[str]
    decided_at: str


class Statistics:
    """Counts decisions. Times are monotonic seconds that the caller hands in."""

    def __init__(self, started: float, names: Mapping[str, str] | None = None) -> None:
        self.names: dict[str, str] = dict(names or {})
        self._started = started
        self._decided_at: str | None = None
        self._totals = Counter[str]()
        self._reasons = Counter[str]()
        self._bases = Counter[str]()
        self._rejected = Counter[str]()
        self._counts: dict[Role, dict[str, list[int]]] = {role: {} for role in _ROLES}
        self._known: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._per_second = Counter[int]()
        self._latency_kind: LatencyKind = "none"
        self._latencies = Histogram()
        self._slices: deque[tuple[int, Histogram]] = deque(maxlen=_SLICES)

    def add(self, seen: Seen, raw: bytes, at: float) -> bool:
        """Count one record of approved-calls or blocked-calls.

        Args:
            seen: the record.
            raw: its bytes, to tell a record that came twice from a second decision.
            at: when it was read.

        Returns:
            Whether it is new: not a record that has been counted before.
        """
        key = (seen.number, seen.request_id, seen.kind)
        digest = hash(raw)
        known = self._known.get(key)
        if known is not None:
            self._totals["repeats" if known == digest else "contradictions"] += 1
            return False
        self._known[key] = digest
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        self._decided_at = max(self._decided_at or "", seen.decided_at)
        if seen.kind == "recall":
            self._totals["recalls"] += 1
            return True
        self._totals[seen.decision] += 1
        self._reasons.update(seen.reasons)
        if seen.basis is not None:
            self._bases[seen.basis] += 1
        self._attribute(seen)
        self._per_second[int(at - self._started)] += 1
        if len(self._per_second) > HISTORY_S:
            del self._per_second[next(iter(self._per_second))]
        return True

    def add_latency(self, kind: LatencyKind, latency_s: float, at: float) -> None:
        """Count how long a decision took. It may be known later than the decision, or never."""
        self._latency_kind = kind
        self._latencies.add(latency_s)
        number = int(at - self._started) // _SLICE_S
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append((number, Histogram()))
        self._slices[-1][1].add(latency_s)

    def reject(self, code: str) -> None:
        """Count one record of rejected-events."""
        self._rejected[code] += 1

    def unreadable(self) -> None:
        """Count an output record that is no decision."""
        self._totals["unreadable"] += 1

    def snapshot(self, at: float) -> Snapshot:
        """The figures at a moment."""
        last_minute = Histogram()
        oldest = int(at - self._started) // _SLICE_S - _SLICES
        for number, part in self._slices:
            if number > oldest:
                last_minute.take_in(part)
        per_second = self._history(at)
        recent = per_second[-_RATE_OVER_S:]
        return Snapshot(
            seconds=at - self._started,
            decided_at=self._decided_at,
            approved=self._totals["approved"],
            blocked=self._totals["blocked"],
            recalls=self._totals["recalls"],
            repeats=self._totals["repeats"],
            contradictions=self._totals["contradictions"],
            unreadable=self._totals["unreadable"],
            rate=sum(recent) / len(recent) if recent else 0.0,
            per_second=per_second,
            reasons=_sorted(self._reasons),
            bases=_sorted(self._bases),
            rejected=_sorted(self._rejected),
            parties=self._attributed("advertiser", "intermediary", "call centre"),
            campaigns=self._attributed("campaign"),
            latency_kind=self._latency_kind,
            latency=self._latencies.latency(),
            latency_last_minute=last_minute.latency(),
        )

    def _attribute(self, seen: Seen) -> None:
        column = 0 if seen.decision == "approved" else 1
        ids = seen.advertiser_id, seen.intermediary_id, seen.call_centre_id, seen.campaign_id
        for of_role, party_id in zip(self._counts.values(), ids, strict=True):
            if party_id is not None:
                key = party_id if party_id in of_role or len(of_role) < PARTIES_MAX else OTHERS
                of_role.setdefault(key, [0, 0])[column] += 1

    def _history(self, at: float) -> list[int]:
        """Decisions of each whole second so far, zeros included; at most HISTORY_S of them."""
        end = int(at - self._started)
        return [self._per_second[second] for second in range(max(0, end - HISTORY_S), end)]

    def _attributed(self, *roles: Role) -> list[PartyCount]:
        counts = [
            PartyCount(role, party_id, self.names.get(party_id, party_id), approved, blocked)
            for role in roles
            for party_id, (approved, blocked) in self._counts[role].items()
        ]
        return sorted(counts, key=lambda party: (roles.index(party.role), -party.total, party.party_id))


def _sorted(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
