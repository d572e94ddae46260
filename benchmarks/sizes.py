"""How much is measured: usually, and for a quick try."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of all parts; those of the command line replace the usual ones."""

    seed: int = 1
    #: Everything is measured so many times.
    repeat: int = 3
    #: Numbers with facts on file, two or three facts each; in the parts whose figures do not depend on that, fewer, which load sooner.
    numbers: int = 1_000_000
    fewer_numbers: int = 100_000
    #: A backlog.
    requests: int = 200_000
    #: The text-book agent's share of it, which is enough to tell its rate.
    textbook_requests: int = 20_000
    #: Requests a second of the open loops, and how long each lasts.
    rates: tuple[float, ...] = (1000.0, 5000.0)
    seconds: float = 15.0
    #: Whether the peer written in Java takes part.
    peer: bool = True
    memory_rate: float = 1000.0
    memory_seconds: float = 600.0
    memory_every_s: float = 10.0
    #: Of each imported file.
    rows: int = 200_000
    #: Sizes of towns whose numbers have two facts each.
    growth_numbers: tuple[int, ...] = (10_000, 100_000, 1_000_000, 5_000_000)
    #: Facts a number, in a town of another size.
    growth_facts: tuple[int, ...] = (1, 10, 100)
    growth_facts_numbers: int = 100_000
    #: A number of a small town is asked about many times in a large backlog, and what is remembered of it is read along.
    growth_requests: int = 20_000


USUAL = Sizes()
QUICK = Sizes(
    repeat=1,
    numbers=5_000,
    fewer_numbers=5_000,
    requests=10_000,
    textbook_requests=2_000,
    seconds=3.0,
    memory_seconds=10.0,
    memory_every_s=1.0,
    rows=10_000,
    growth_numbers=(1_000, 10_000),
    growth_facts=(10,),
    growth_facts_numbers=1_000,
    growth_requests=5_000,
)
