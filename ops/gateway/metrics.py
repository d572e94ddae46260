"""The Prometheus figures of a gateway. No label holds a number, a request, a key or a person."""

from __future__ import annotations

from ops.exposition import Family, FamilyCollector, Figures
from ops.gateway.gateway import Gateway
from streams.timings import Timing

COUNTERS = {
    "ringfence_gateway_responses_total": Family("answers by route and status", ("route", "status")),
    "ringfence_gateway_refused_total": Family("requests of which nothing was done, by reason", ("reason",)),
    "ringfence_gateway_streams_dropped_total": Family("event streams that ended because their reader was too slow"),
}
GAUGES = {
    "ringfence_gateway_waiting": Family("call requests that wait for their decisions"),
    "ringfence_gateway_streams": Family("open event streams"),
    "ringfence_gateway_ready": Family("1 if the last look found Kafka answering and the decisions read, else 0"),
}
HISTOGRAMS = {
    "ringfence_gateway_answer_seconds": Family("from taking in a call request until its decision was read; those decided in time"),
}

#: Every reason for which nothing is done; shown before it first counts, as Prometheus sees no rise in a series that begins with 1.
REFUSALS = ("key", "scope", "rate", "size", "busy", "unacknowledged")


class GatewayCollector(FamilyCollector):
    """Shows what one gateway holds."""

    counters, gauges, histograms = COUNTERS, GAUGES, HISTOGRAMS

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def counted(self) -> dict[str, Figures]:
        """Of every counter its figures."""
        gateway = self._gateway
        return {
            # A copy is one step of the interpreter, during which the gateway's loop counts nothing.
            "ringfence_gateway_responses_total": {
                (route, str(status)): count for (route, status), count in dict(gateway.responses).items()
            },
            "ringfence_gateway_refused_total": {(reason,): gateway.refused[reason] for reason in REFUSALS},
            "ringfence_gateway_streams_dropped_total": {(): gateway.feed.hub.dropped},
        }

    def gauged(self) -> dict[str, Figures]:
        """Of every gauge its figures."""
        gateway = self._gateway
        return {
            "ringfence_gateway_waiting": {(): gateway.asking.waiting},
            "ringfence_gateway_streams": {(): gateway.feed.hub.streams},
            "ringfence_gateway_ready": {(): gateway.feed.trouble is None},
        }

    def timed(self) -> dict[str, Timing]:
        """Of every histogram its timing."""
        return {"ringfence_gateway_answer_seconds": self._gateway.asking.took}
