"""Metrics as Prometheus reads them: families from tables and figures, and the server that answers scrapes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from rules.errors import CannotStart
from streams.timings import Timing

log = structlog.get_logger(__name__)

#: Value by the values of a family's labels.
Figures = dict[tuple[str, ...], float]


class Family(NamedTuple):
    """One metric: what it counts, and the names of its labels."""

    meaning: str
    labels: tuple[str, ...] = ()


#: Families by name.
Table = Mapping[str, Family]


class FamilyCollector(Collector):
    """Shows the families of its tables, in their order, at each scrape; what they show comes from the methods of a subclass."""

    counters: Table
    gauges: Table
    histograms: Table

    def describe(self) -> list[Metric]:
        """Nothing: what is registered is not looked at before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        counted, gauged, timed = self.counted(), self.gauged(), self.timed()
        for name, family in self.counters.items():
            counter = CounterMetricFamily(name, family.meaning, labels=family.labels)
            for labels, value in sorted(counted[name].items()):
                counter.add_metric(labels, value)
            yield counter
        for name, family in self.gauges.items():
            gauge = GaugeMetricFamily(name, family.meaning, labels=family.labels)
            for labels, value in sorted(gauged[name].items()):
                gauge.add_metric(labels, value)
            yield gauge
        for name, family in self.histograms.items():
            buckets = [(_edge(edge_s), float(count)) for edge_s, count in timed[name].buckets()]
            yield HistogramMetricFamily(name, family.meaning, buckets=buckets, sum_value=timed[name].sum_s)

    @abstractmethod
    def counted(self) -> dict[str, Figures]:
        """Of every counter its figures."""

    @abstractmethod
    def gauged(self) -> dict[str, Figures]:
        """Of every gauge its figures."""

    @abstractmethod
    def timed(self) -> dict[str, Timing]:
        """Of every histogram its timing."""


def _edge(edge_s: float) -> str:
    """A bucket's edge (seconds) as Prometheus writes it."""
    return "+Inf" if edge_s == math.inf else str(edge_s)


class MetricsServer:
    """Answers scrapes in threads of its own, from the start to :meth:`stop`.

    Args:
        address: ``HOST:PORT``, an IPv6 host in brackets; port 0 is any free one.
        collectors: what is shown.

    Raises:
        CannotStart: the address cannot be listened at.
    """

    def __init__(self, address: str, collectors: Sequence[Collector]) -> None:
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except (OSError, OverflowError) as error:
            raise CannotStart(f"RINGFENCE_METRICS: cannot listen at {address}: {error}; give a free port of this machine") from None
        self.port = int(self._server.server_port)
        log.info("metrics", url=f"http://{host}:{self.port}/metrics")

    def stop(self) -> None:
        """Listen no more; takes up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
