"""One request, one decision (G2), and every request an answer (G7)."""

from __future__ import annotations

from ops.audit.case import CLOCKS_APART, Case, Decided
from ops.audit.findings import CONFLICT, DIFFERING, LOST, REJECTED_DECIDED, REVOKED, SECOND, UNREPORTED, WRONG_REJECTION, Finding, Tally
from ops.audit.partition import PartitionLog
from ops.audit.records import Asked
from ops.audit.terms import Terms
from rules.events import REQUEST_TOPIC


def check_unreadable(log: PartitionLog, terms: Terms, tally: Tally) -> None:
    """Requests and facts that cannot be read stand in rejected-events, with the code that reading them gives."""
    for topic, offset in log.misplaced:
        tally.counts["misplaced" if topic == REQUEST_TOPIC else "misplaced facts"] += terms.judged(topic, log.number, offset)
    for (topic, offset), unreadable in log.unreadable.items():
        if not terms.judged(topic, log.number, offset):
            continue
        code = log.rejections.get((topic, offset))
        if code == unreadable.code:
            tally.counts["rejected" if topic == REQUEST_TOPIC else "rejected facts"] += 1
        elif code is not None:
            detail = f"rejected as {code}, read as {unreadable.code}"
            tally.found(Finding(WRONG_REJECTION, topic, log.number, offset, None, "", detail))
        elif terms.young(unreadable.log_time_ms):
            tally.pending(topic, log.number, offset)
        else:
            detail = f"it cannot be read ({unreadable.code}), and is not in rejected-events"
            tally.found(Finding(LOST if topic == REQUEST_TOPIC else UNREPORTED, topic, log.number, offset, None, "", detail))


def check(case: Case, log: PartitionLog, terms: Terms, tally: Tally) -> None:
    """Every request has one answer, and repeats have the same.

    Args:
        case: one number.
        log: its partition, for what was rejected.
        terms: memory and bounds.
        tally: takes what is counted and found.
    """
    for request_id, requests in case.asked.items():
        for position, asked in enumerate(requests):
            if asked.judged:
                tally.counts["requests"] += 1
                rejected_as = log.rejections.get((REQUEST_TOPIC, asked.offset))
                _check_answer(case, asked, requests[:position], rejected_as, terms, tally)
        _check_repeats(case, request_id, tally)
    for decided in case.decided.values():
        _count(decided, tally)
        _check_memory(case, decided, terms)


def _check_answer(case: Case, asked: Asked, before: list[Asked], rejected_as: str | None, terms: Terms, tally: Tally) -> None:
    answered = asked.offset in case.answered
    if rejected_as is None:
        if not answered and terms.young(asked.log_time_ms):
            tally.pending(REQUEST_TOPIC, case.partition, asked.offset)
        elif not answered:
            case.found(LOST, asked, f"no answer within {terms.bound_ms // 1000} s")
        return
    if answered:
        case.found(REJECTED_DECIDED, asked, f"rejected as {rejected_as}, and decided")
    elif rejected_as != "conflict":
        case.found(WRONG_REJECTION, asked, f"rejected as {rejected_as}, yet it can be read")
    elif case.first_request == 0 and not _contradicted(case, asked, before, terms):
        case.found(WRONG_REJECTION, asked, "rejected as conflict, and no request that is remembered contradicts it")
    else:
        tally.counts["conflicts"] += 1


def _contradicted(case: Case, asked: Asked, before: list[Asked], terms: Terms) -> bool:
    """Whether an earlier request of the id asks otherwise, and a decision of the id was still remembered."""
    asked_at = terms.guard_clock(asked.log_time_ms)
    decided = case.decided.get(asked.request.request_id, ())
    remembered = any(_remembered_until(one, terms) + CLOCKS_APART > asked_at for one in decided)
    return remembered and not all(asked.same_content(earlier) for earlier in before)


def _remembered_until(decided: Decided, terms: Terms) -> int:
    return max(decided.decided_at + terms.memory, decided.valid_until)


def _check_repeats(case: Case, request_id: str, tally: Tally) -> None:
    for decided in case.decided.get(request_id, ()):
        for repeat in decided.repeats:
            if not repeat.judged:
                continue
            tally.counts["repeats"] += 1
            if decided.asked is not None and not repeat.same_content(decided.asked):
                case.found(
                    CONFLICT, repeat, f"answered as {REQUEST_TOPIC}-{case.partition}@{decided.asked.offset}, which asks otherwise"
                )


def check_after_recall(case: Case, terms: Terms) -> None:
    """A repeat that comes after a recall is answered with the recall."""
    for ordered in case.decided.values():
        for decided in ordered:
            if not (decided.decision.approved and decided.recalls):
                continue
            recalled_ms = decided.recalls[0].log_time_ms
            for repeat in decided.repeats:
                if repeat.judged and repeat.log_time_ms > recalled_ms + terms.tolerance_ms:
                    case.found(REVOKED, repeat, f"recalled {repeat.log_time_ms - recalled_ms} ms before it was asked again")


def _count(decisions: list[Decided], tally: Tally) -> None:
    for decided in decisions:
        if decided.first.judged:
            tally.counts["decisions"] += 1
            tally.counts["approvals" if decided.decision.approved else "blocked"] += 1


def _check_memory(case: Case, decisions: list[Decided], terms: Terms) -> None:
    """Two decisions of one request_id lie further apart than the first one has to be remembered."""
    for position, later in enumerate(decisions):
        if not later.judged:
            continue
        for earlier in decisions[:position]:
            if later.decided_at < _remembered_until(earlier, terms):
                _report_second(case, earlier, later)
                break


def _report_second(case: Case, earlier: Decided, later: Decided) -> None:
    one, other = earlier.asked, later.asked
    place = f"{earlier.first.topic}-{case.partition}@{earlier.first.offset}"
    if one is None or other is None or one is other:
        case.found(SECOND, later.first, f"decided before: {place}")
    elif one.same_content(other):
        case.found(DIFFERING, later.first, f"a repeat of what was decided at {place}")
    else:
        case.found(CONFLICT, later.first, f"asks otherwise than what was decided at {place}")
