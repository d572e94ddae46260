"""The Prometheus metrics of a worker (``RINGFENCE_METRICS``): what the guard holds, read when somebody asks for it.

A thread of its own answers, so that a scrape waits for no turn. It copies what the worker's loop counts, and asks neither the broker
nor Redis: lag and readiness are those of the last look. No label holds a number, a request or a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

from agents.context import Guard
from ops.exposition import Family, FamilyCollector, Figures
from ops.readiness import CODES, Readiness
from rules.codes import BASIS_CODES, REASON_CODES, SYSTEM_CODES
from rules.events import ERROR_CODES, FACT_MODELS, MODELS, REQUEST_TOPIC
from streams.checkpoints import Checkpoints
from streams.lag import LagWatch
from streams.timings import Timing

COUNTERS = {
    "ringfence_decisions_total": Family("requests decided, repeats not among them", ("outcome",)),
    "ringfence_reasons_total": Family("reasons of blocked requests; one request may have several", ("code",)),
    "ringfence_bases_total": Family("bases of approved requests", ("code",)),
    "ringfence_repeats_total": Family("requests that got their first answer again"),
    "ringfence_recalls_total": Family("approvals taken back by a fact, or because they surfaced late"),
    "ringfence_surfaced_late_total": Family("decisions of a former owner that nobody knew"),
    "ringfence_facts_total": Family("records of fact topics worked off, those read again among them", ("topic",)),
    "ringfence_rejected_total": Family("records that could not be used", ("topic", "code")),
    "ringfence_misplaced_total": Family("records in a wrong partition, sent home", ("topic",)),
    "ringfence_unknown_fields_total": Family("fields that the contract does not know, passed over"),
    "ringfence_not_taken_total": Family("records that the broker did not take, at each attempt", ("topic", "reason")),
    "ringfence_rebuild_records_total": Family("records of number-states read to fill partitions"),
    "ringfence_checkpoints_total": Family("checkpoints written to number-states"),
    "ringfence_checkpoint_states_total": Family("states in these checkpoints"),
}
GAUGES = {
    "ringfence_lag_records": Family("records not worked off at the last look, over the partitions that are ready", ("topic",)),
    "ringfence_lag_seconds": Family("for how long some of these have not been worked off, the longest of all partitions", ("topic",)),
    "ringfence_partitions_owned": Family("partitions of this worker"),
    "ringfence_partitions_ready": Family("of these, taken over and whole"),
    "ringfence_partitions_rebuilding": Family("of these, being filled from Kafka because Redis lacks their state"),
    "ringfence_rebuild_unread_records": Family("records of number-states that are still to be read to fill them"),
    "ringfence_ready": Family("1 if the last look found the worker ready, else 0"),
    "ringfence_not_ready": Family("how often the last look found this reason; 0: it does not hold", ("reason",)),
}
HISTOGRAMS = {
    "ringfence_barrier_wait_seconds": Family(
        "from the close of a partition's batch until its facts are applied, or it is blocked as stale"
    ),
    "ringfence_turn_seconds": Family("from the close of a partition's batch until its decisions are acknowledged"),
    "ringfence_answer_seconds": Family(
        "from the broker's time of a request until its decision or rejection is acknowledged, one for each request"
    ),
    "ringfence_recall_latency_seconds": Family(
        "from the broker's time of a stop until its recall is acknowledged, one for each recall"
    ),
    "ringfence_take_over_seconds": Family("from the assignment of a partition whose state is in Redis until it is ready"),
    "ringfence_rebuild_seconds": Family("the same where Redis lacks the state, or from when it was found to have lost it"),
}

#: Whose other words are labels: how a key of ``Guard.counts`` begins.
_COUNTED = {
    "reason": "ringfence_reasons_total",
    "basis": "ringfence_bases_total",
    "repeated": "ringfence_repeats_total",
    "recalls": "ringfence_recalls_total",
    "surfaced late": "ringfence_surfaced_late_total",
    "applied": "ringfence_facts_total",
    "rejected": "ringfence_rejected_total",
    "misplaced": "ringfence_misplaced_total",
    "unknown fields": "ringfence_unknown_fields_total",
    "not taken": "ringfence_not_taken_total",
}

#: What is shown before it first counts: Prometheus sees no rise in a series that begins with 1.
_FROM_THE_START: Mapping[str, Sequence[tuple[str, ...]]] = {
    "ringfence_reasons_total": [(code,) for code in SYSTEM_CODES + REASON_CODES],
    "ringfence_bases_total": [(code,) for code in BASIS_CODES],
    "ringfence_facts_total": [(topic,) for topic in FACT_MODELS],
    "ringfence_rejected_total": list(product(MODELS, ERROR_CODES)),
    "ringfence_misplaced_total": [(topic,) for topic in (REQUEST_TOPIC, *FACT_MODELS)],
}


class GuardCollector(FamilyCollector):
    """Shows what one worker holds."""

    counters, gauges, histograms = COUNTERS, GAUGES, HISTOGRAMS

    def __init__(self, guard: Guard, lag: LagWatch, readiness: Readiness, checkpoints: Checkpoints) -> None:
        self._guard = guard
        self._lag = lag
        self._readiness = readiness
        self._checkpoints = checkpoints

    def counted(self) -> dict[str, Figures]:
        """Of every counter its figures, also of codes that have not counted yet."""
        # One step of the interpreter, during which the worker's loop counts nothing; it would not be allowed while we iterate.
        counts = dict(self._guard.counts)
        figures: dict[str, Figures] = {name: dict.fromkeys(_FROM_THE_START.get(name, ()), 0.0) for name in COUNTERS}
        figures |= {name: {(): 0} for name, family in COUNTERS.items() if not family.labels}
        figures["ringfence_decisions_total"] = {(outcome,): counts.pop(outcome, 0) for outcome in ("approved", "blocked")}
        for key, count in counts.items():
            for begin, name in _COUNTED.items():
                if key == begin or key.startswith(f"{begin} "):
                    figures[name][tuple(key.removeprefix(begin).split())] = count
        figures["ringfence_rebuild_records_total"] = {(): self._checkpoints.records_read}
        figures["ringfence_checkpoints_total"] = {(): self._checkpoints.written}
        figures["ringfence_checkpoint_states_total"] = {(): self._checkpoints.states}
        return figures

    def gauged(self) -> dict[str, Figures]:
        """Of every gauge its figures, by the last look."""
        partitions = self._guard.ownership.all
        held = Counter(reason.code for reason in self._readiness.reasons or ())
        return {
            "ringfence_lag_records": {(topic,): count for topic, count in self._lag.records.items()},
            "ringfence_lag_seconds": {(topic,): late_s for topic, late_s in self._lag.seconds.items()},
            "ringfence_partitions_owned": {(): len(partitions)},
            "ringfence_partitions_ready": {(): sum(one.ready for one in partitions)},
            "ringfence_partitions_rebuilding": {(): sum(one.rebuilding for one in partitions)},
            "ringfence_rebuild_unread_records": {(): sum(one.unread for one in partitions)},
            "ringfence_ready": {(): self._readiness.ready},
            "ringfence_not_ready": {(code,): held[code] for code in (*CODES, *held)},
        }

    def timed(self) -> dict[str, Timing]:
        """Of every histogram its timing."""
        of = self._guard.timings
        return dict(zip(HISTOGRAMS, (of.barrier, of.turn, of.answer, of.recall, of.take_over, of.rebuild), strict=True))
