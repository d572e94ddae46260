"""Who is called: a person of the endless row, the number that belongs to it, and how chance has its say."""

from __future__ import annotations

import random
from typing import NamedTuple

# 10,000,000 mobile numbers and 1,000,000 in each city; a multiplier without common factors visits each of them once.
_MOBILE, _CITY, _STRIDE = 10_000_000, 1_000_000, 7_654_321
_CITIES = ("+31200", "+31100", "+31300")


class Person(NamedTuple):
    """Who a number belongs to, as far as call lists go: the campaigns that have the number."""

    number: str
    ref: str
    campaigns: tuple[str, ...]


def number_of(seed: int, index: int) -> str:
    """The number of person ``index`` of a seed's row: nine in ten are mobile, and no two persons share one."""
    place = index + 1_000_003 * seed
    if index % 10:
        return f"+3169{place * _STRIDE % _MOBILE:07d}"
    return f"{_CITIES[index // 10 % 3]}{place // 10 * _STRIDE % _CITY:06d}"


def chance(rng: random.Random, percent: float) -> bool:
    """True in so many cases of a hundred."""
    return rng.random() * 100 < percent


def one_of(rng: random.Random, shares: dict[str, int]) -> str:
    """One of the keys, each as often as its share says."""
    return rng.choices(tuple(shares), tuple(shares.values()))[0]
