"""Results as pictures: SVG, readable on light and dark paper."""

from __future__ import annotations

from statistics import median
from typing import Any


def bars(measured: list[dict[str, Any]]) -> str:
    """The rates as bars, each with a whisker from its lowest to its highest backlog."""
    label, width, bar, gap = 260, 420, 18, 12
    most = max(max(one["decisions_per_s"]) for one in measured)
    height = len(measured) * (bar + gap) + 30
    rows = []
    for position, one in enumerate(measured):
        rates, top = one["decisions_per_s"], 30 + position * (bar + gap)
        middle, reach = top + bar / 2, median(rates) / most * width
        low, high = (label + edge / most * width for edge in (min(rates), max(rates)))
        facts = f"{one['facts']} fact{'' if one['facts'] == 1 else 's'} each"
        rows += [
            f'<text x="{label - 8}" y="{middle + 4}" text-anchor="end">{one["numbers"]:,} numbers, {facts}</text>',
            f'<rect x="{label}" y="{top}" width="{reach:.1f}" height="{bar}" fill="#4c78a8"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {top + 4}v{bar - 8}M{high:.1f} {top + 4}v{bar - 8}" stroke="#f58518"/>',
            f'<text x="{label + width + 12}" y="{middle + 4}">{median(rates):,.0f}/s</text>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {label + width + 90} {height}" font-family="sans-serif" font-size="13" '
        f'fill="#808080"><text x="0" y="16">Decisions a second of one worker, backlog: median, lowest and highest</text>'
        f"{''.join(rows)}</svg>\n"
    )


def line(series: list[list[float]]) -> str:
    """The series as a line."""
    left, width, height, bottom = 60, 520, 180, 210
    right = left + width
    whole, most = max(series[-1][0], 1.0), max(mb for _, mb in series) * 1.1
    points = " ".join(f"{left + at / whole * width:.1f},{bottom - mb / most * height:.1f}" for at, mb in series)
    levels = [most * share for share in (0.25, 0.5, 0.75, 1.0)]
    lines = "".join(
        f'<path d="M{left} {bottom - mb / most * height:.1f}h{width}" stroke="#808080" stroke-opacity="0.3"/>'
        f'<text x="{left - 8}" y="{bottom - mb / most * height + 4:.1f}" text-anchor="end">{mb:.0f}</text>'
        for mb in levels
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + 20} {bottom + 30}" font-family="sans-serif" font-size="13" '
        f'fill="#808080"><text x="0" y="16">Resident MB of one worker under steady load</text>{lines}'
        f'<polyline points="{points}" fill="none" stroke="#4c78a8" stroke-width="2"/>'
        f'<text x="{left}" y="{bottom + 20}">0 s</text><text x="{right}" y="{bottom + 20}" text-anchor="end">{whole:.0f} s</text>'
        f"</svg>\n"
    )
