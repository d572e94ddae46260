"""The parts of the benchmark, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from benchmarks import growth, imports, memory, side_by_side, two_workers
from benchmarks.servers import Place
from benchmarks.sizes import Sizes

Measure = Callable[[Place, Sizes], Coroutine[Any, Any, dict[str, Any]]]

PARTS: Mapping[str, Measure] = {
    "contenders": side_by_side.measure,
    "two-workers": two_workers.measure,
    "memory": memory.measure,
    "import": imports.measure,
    "growth": growth.measure,
}
