"""The Prometheus figures of a gateway. No label holds a number, a request, a key or a person."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ops.gateway.gateway import Gateway
from ops.metrics import Family, Figures, edge

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


class GatewayCollector(Collector):
    """Makes families of what one gateway holds, at each scrape."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def describe(self) -> list[Metric]:
        """Nothing: what is registered is not looked at before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family of ``COUNTERS``, ``GAUGES`` and ``HISTOGRAMS``, in that order."""
        gateway = self._gateway
        # Copies are one step of the interpreter, during which the gateway's loop counts nothing.
        counted: dict[str, Figures] = {
            "ringfence_gateway_responses_total": {
                (route, str(status)): count for (route, status), count in dict(gateway.responses).items()
            },
            "ringfence_gateway_refused_total": {(reason,): gateway.refused[reason] for reason in REFUSALS},
            "ringfence_gateway_streams_dropped_total": {(): gateway.feed.hub.dropped},
        }
        gauged = {
            "ringfence_gateway_waiting": gateway.asking.waiting,
            "ringfence_gateway_streams": gateway.feed.hub.streams,
            "ringfence_gateway_ready": gateway.feed.trouble is None,
        }
        for name, family in COUNTERS.items():
            counter = CounterMetricFamily(name, family.meaning, labels=family.labels)
            for labels, value in sorted(counted[name].items()):
                counter.add_metric(labels, value)
            yield counter
        for name, family in GAUGES.items():
            yield GaugeMetricFamily(name, family.meaning, value=gauged[name])
        for name, family in HISTOGRAMS.items():
            took = gateway.asking.took
            buckets = [(edge(edge_s), float(count)) for edge_s, count in took.buckets()]
            yield HistogramMetricFamily(name, family.meaning, buckets=buckets, sum_value=took.sum_s)
