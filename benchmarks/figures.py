"""Figures out of the result of the part ``contenders``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

Result = dict[str, Any]


def values(result: Result, contender: str, figure: str, rate: str | None = None) -> list[float]:
    """One figure of every repeat, of the open loop at a rate where one is given; empty where it was not measured."""
    samples = result["samples"].get(contender, [])
    if rate is None:
        return [sample[figure] for sample in samples]
    return [sample["open_loops"][rate][figure] for sample in samples if rate in sample["open_loops"]]


def ratio(result: Result, ours: str, theirs: str, figure: str) -> float | None:
    """One's figure over another's: median of the ratios within a repeat, which were measured side by side.

    None where there is none; so it is where another's CPU was too little to be counted, as in runs that only try things out.
    """
    pairs = zip(values(result, ours, figure), values(result, theirs, figure), strict=False)
    found = [one / other for one, other in pairs if other]
    return median(found) if found else None


def spread(found: Sequence[float], form: str) -> str:
    """Median (least - most); a dash where there is nothing."""
    if not found:
        return "-"
    if len(found) == 1:
        return format(found[0], form)
    return f"{median(found):{form}} ({min(found):{form}} - {max(found):{form}})"
