"""Every decision rests on what the log held before its request, and on no more than it holds (``as_of``)."""

from __future__ import annotations

from collections.abc import Sequence

from ops.audit.case import Case, Decided
from ops.audit.findings import BEYOND_END, TOO_LOW
from ops.audit.histories import Histories
from ops.audit.partition import PartitionLog
from ops.audit.records import Asked
from ops.audit.references import ReferenceLog
from ops.audit.terms import Terms
from rules.events import REQUEST_TOPIC


def check(case: Case, log: PartitionLog, references: ReferenceLog, histories: Histories, terms: Terms) -> None:
    """Compare the ``as_of`` of each decision with the positions of the fact and reference topics.

    A decision is not younger than its request, and has to cover what came before that; one that says itself that its facts were not up
    to date (``S_STATE_STALE``) need not.
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
            asked = _newest(decided, terms)
            if asked is None or "S_STATE_STALE" in decided.decision.reasons:
                continue
            behind = []
            for topic, where in positions.items():
                known, least = as_of.get(topic, 0), where.needed(asked.log_time_ms - terms.tolerance_ms)
                if known < least and not _came_later(histories, topic, where.between(known, least), asked):
                    behind.append(f"{topic} {known} instead of {least}")
            if behind:
                case.found(TOO_LOW, decided.first, ", ".join(behind))


def _came_later(histories: Histories, topic: str, offsets: Sequence[int], asked: Asked) -> bool:
    """Whether clients wrote down that none of some records was acknowledged when the request was sent, whatever log times say."""
    sent_at = histories.sent_at(REQUEST_TOPIC, asked.offset)
    acknowledged = [histories.acked_at(topic, offset) for offset in offsets]
    return sent_at is not None and all(acked_at is not None and sent_at <= acked_at for acked_at in acknowledged)


def _newest(decided: Decided, terms: Terms) -> Asked | None:
    """The latest request that the decision was new for; None if that is not in the log any more.

    A request that comes when the decision need not be remembered any longer is a new one, whatever it is answered with.
    """
    remembered_until = max(decided.decided_at + terms.memory, decided.valid_until)
    late = [one for one in decided.repeats if one.judged and terms.guard_clock(one.log_time_ms) > remembered_until]
    return late[-1] if late else decided.asked
