"""Every decision rests on what the log held before its request, and on no more than it holds (``as_of``)."""

from __future__ import annotations

from ops.audit.case import Case, Decided
from ops.audit.findings import BEYOND_END, TOO_LOW
from ops.audit.partition import PartitionLog
from ops.audit.references import ReferenceLog
from ops.audit.terms import Terms


def check(case: Case, log: PartitionLog, references: ReferenceLog, terms: Terms) -> None:
    """Compare the ``as_of`` of each decision with the positions of the fact and reference topics.

    A decision is not younger than its request, whose log time it has to cover but for the tolerance; one that says itself that its
    facts were not up to date (``S_STATE_STALE``) need not.
    """
    positions = log.positions | references.positions
    for ordered in case.decided.values():
        for decided in ordered:
            if not decided.judged:
                continue
            as_of = decided.decision.as_of
            beyond = [topic for topic, where in positions.items() if as_of.get(topic, 0) > where.end]
            if beyond:
                case.found(BEYOND_END, decided.first, "beyond the end of " + ", ".join(beyond))
            if "S_STATE_STALE" in decided.decision.reasons or (asked_ms := _asked_ms(decided, terms)) is None:
                continue
            needed = {topic: where.needed(asked_ms - terms.tolerance_ms) for topic, where in positions.items()}
            behind = [
                f"{topic} {as_of.get(topic, 0)} instead of {least}" for topic, least in needed.items() if as_of.get(topic, 0) < least
            ]
            if behind:
                case.found(TOO_LOW, decided.first, ", ".join(behind))


def _asked_ms(decided: Decided, terms: Terms) -> int | None:
    """Log time of the latest request that the decision was new for; None if that is not in the log any more.

    A request that comes when the decision need not be remembered any longer is a new one, whatever it is answered with.
    """
    remembered_until = max(decided.decided_at + terms.memory, decided.valid_until)
    late = [one.log_time_ms for one in decided.repeats if one.judged and terms.guard_clock(one.log_time_ms) > remembered_until]
    return max([*late, *([decided.asked.log_time_ms] if decided.asked is not None else [])], default=None)
