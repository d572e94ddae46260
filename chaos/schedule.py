"""Which faults happen when: a pure function of the seed and the length of the window."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

FaultKind = Literal[
    "kill",
    "pause",
    "redis-flush",
    "redis-restart",
    "broker-restart",
    "rebalance",
    "kafka-cut",
    "redis-cut",
    "kafka-delay",
    "redis-delay",
]
KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

#: Shortest and longest time that a fault lasts, in seconds. A kill and a flush are over at once.
DURATIONS_S: Final[dict[FaultKind, tuple[float, float]]] = {
    "kill": (0, 0),
    "pause": (0.5, 15),
    "redis-flush": (0, 0),
    "redis-restart": (0.2, 3),
    "broker-restart": (0, 2),
    "rebalance": (6, 10),
    "kafka-cut": (0.2, 5),
    "redis-cut": (0.2, 5),
    "kafka-delay": (2, 5),
    "redis-delay": (2, 5),
}
#: Every third pause outlasts the session of 6 s, so that the others take over while the worker still believes that it owns.
_PAUSE_PAST_SESSION_S = (7.0, 15.0)
_DELAY_MS = (50, 500)
#: What comes back by itself takes about so long: the session of a dead worker runs out, and a broker's does too before it may register
#: again (12 to 15 s on two cores).
_COMES_BACK_S: Final[dict[FaultKind, float]] = {"kill": 6.0, "broker-restart": 12.0}
#: Time without a fault that the guard gets to recover, on average, where the window is long enough.
_CALM_S = 12.0
_TOGETHER_EVERY = 7


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the schedule.

    Attributes:
        at_s: seconds from the beginning of the window.
        kind: what happens.
        duration_s: how long it lasts; what comes back by itself (a killed worker, a broker that starts) takes longer.
        pick: 0 <= pick < 1, says which worker is hit, and of a rebalance whether one joins or one leaves.
        delay_ms: what a delay adds to each answer; 0 for every other kind.
    """

    at_s: float
    kind: FaultKind
    duration_s: float
    pick: float
    delay_ms: int = 0


def plan(seed: int, window_s: float) -> list[Fault]:
    """The faults of a window, in order of their start; each kind at least once, and nearly equally often.

    One in seven begins within a second of the one before it. All end within the window.

    Raises:
        ValueError: the window is too short for every kind.
    """
    rng = random.Random(seed)
    drawn: list[Fault] = []
    spent_s = 0.0
    for kind in _in_turn(rng):
        fault = _draw(rng, kind, drawn)
        lasts_s = _lasts_s(fault) + _CALM_S
        if len(drawn) >= len(KINDS) and spent_s + lasts_s > window_s:
            break
        drawn.append(fault)
        spent_s += lasts_s
    return _spread(rng, drawn, window_s)


def _in_turn(rng: random.Random) -> Iterator[FaultKind]:
    """Every kind once in some order, and again, without end."""
    while True:
        yield from rng.sample(KINDS, len(KINDS))


def _draw(rng: random.Random, kind: FaultKind, drawn: list[Fault]) -> Fault:
    duration_s = rng.uniform(*DURATIONS_S[kind])
    if kind == "pause" and sum(fault.kind == "pause" for fault in drawn) % 3 == 0:
        duration_s = rng.uniform(*_PAUSE_PAST_SESSION_S)
    delay_ms = rng.randint(*_DELAY_MS) if kind.endswith("delay") else 0
    return Fault(0.0, kind, round(duration_s, 2), round(rng.random(), 4), delay_ms)


def _lasts_s(fault: Fault) -> float:
    return fault.duration_s + _COMES_BACK_S.get(fault.kind, 0.0)


def _spread(rng: random.Random, drawn: list[Fault], window_s: float) -> list[Fault]:
    """Give the faults their starts: what the window holds beyond them is calm, shared out unevenly."""
    joins = set(range(rng.randint(1, _TOGETHER_EVERY - 1), len(drawn), _TOGETHER_EVERY))
    calm_s = window_s - sum(_lasts_s(fault) for fault in drawn)
    weights = [0.0 if index + 1 in joins else rng.uniform(0.6, 1.4) for index in range(len(drawn))]
    if calm_s < len(drawn):
        raise ValueError(f"a window of {window_s:.0f} s is too short for {len(drawn)} faults that last {window_s - calm_s:.0f} s")
    planned, at_s = list[Fault](), 0.0
    for index, fault in enumerate(drawn):
        start_s = planned[-1].at_s + rng.random() if index in joins else at_s
        planned.append(Fault(round(start_s, 2), fault.kind, fault.duration_s, fault.pick, fault.delay_ms))
        at_s += _lasts_s(fault) + calm_s * weights[index] / sum(weights)
    return planned
