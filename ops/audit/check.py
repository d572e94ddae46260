"""All checks over the logs of one partition. Nothing here reads a socket: tests hand in records of their own."""

from __future__ import annotations

from collections.abc import Callable

from ops.audit import answers, coverage, redecision, stops
from ops.audit.case import Case
from ops.audit.findings import Tally
from ops.audit.histories import Histories
from ops.audit.partition import PartitionLog
from ops.audit.references import ReferenceLog
from ops.audit.terms import Terms


def check_partition(
    log: PartitionLog,
    references: ReferenceLog,
    histories: Histories,
    terms: Terms,
    tally: Tally,
    advance: Callable[[int], None] = lambda _records: None,
) -> None:
    """Judge a partition, number by number.

    Args:
        log: everything of the partition; it is empty afterwards.
        references: all reference topics.
        histories: what load clients wrote down; empty if nothing.
        terms: what the audit goes by.
        tally: takes what is counted and found.
        advance: told how many records were dealt with.
    """
    answers.check_unreadable(log, terms, tally)
    for number, dossier in log.dossiers():
        case = Case(number, dossier, log, terms, tally)
        answers.check(case, log, terms, tally)
        answers.check_after_recall(case, terms)
        coverage.check(case, log, references, histories, terms)
        redecision.check(case, log, references, terms, tally)
        stops.check(case, references, histories, terms, tally)
        advance(len(dossier.requests) + len(dossier.outputs) + len(dossier.facts))
