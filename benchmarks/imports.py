"""The part ``import``: how fast ``ringfence import`` publishes a file, and how fast a worker then applies it."""

from __future__ import annotations

import asyncio
import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.contenders import RINGFENCE, Running, environment_of
from benchmarks.servers import Place, say
from benchmarks.sizes import Sizes
from benchmarks.stage import applied_in
from benchmarks.town import CLOCK_START, facts_of, number_of
from benchmarks.waiting import until
from config.settings import Settings
from rules.instants import SECOND
from streams.processes import end, spawn
from streams.state import Store
from streams.topics import ensure_topics

_LOOK_EVERY_S = 0.05


async def measure(place: Place, sizes: Sizes) -> dict[str, Any]:
    """Objections from CSV and consents from JSON lines, alternately, each time of other numbers."""
    settings = place.settings("import")
    await ensure_topics(settings)
    found: dict[str, list[dict[str, float]]] = {"objections": [], "consents": []}
    store = Store(settings)
    try:
        with Running(RINGFENCE, settings, CLOCK_START / SECOND, place.folder) as worker:
            await until(worker.says_ready, "the worker is ready", worker.check)
            for repeat in range(sizes.repeat):
                for topic, write in (("objections", _write_csv), ("consents", _write_lines)):
                    path = write(place.folder, sizes.rows, repeat * sizes.rows)
                    one = await _import(settings, worker, store, path, sizes.rows)
                    path.unlink()
                    found[topic].append(one)
                    say(f"r{repeat} {topic}: {one['rows_per_s']:,.0f} rows a second, applied at {one['applied_per_s']:,.0f}")
    finally:
        await store.close()
    return {"samples": found}


async def _import(settings: Settings, worker: Running, store: Store, path: Path, rows: int) -> dict[str, float]:
    """Import a file while the worker is paused, and let it go on when all is published: neither figure has the other in it."""
    applied = await applied_in(store)
    log = path.with_suffix(".log")
    worker.pause()
    try:
        with log.open("wb") as output:
            began = time.monotonic()
            importing = spawn(
                [sys.executable, "-m", "ops.cli", "import", str(path)],
                env=environment_of(settings), stdout=output, stderr=output, cwd=path.parent,
            )  # fmt: skip
            try:
                code = await asyncio.to_thread(importing.wait)
            finally:
                end(importing, 0)
            took_s = time.monotonic() - began
        if code:
            raise RuntimeError(f"the import of {path.name} ended with code {code}: {log.read_text(errors='replace')}")
    finally:
        began = time.monotonic()
        worker.resume()

    async def all_applied() -> bool:
        return await applied_in(store) >= applied + rows

    await until(all_applied, f"{rows:,} facts are applied", worker.check, every_s=_LOOK_EVERY_S)
    return {"rows_per_s": rows / took_s, "applied_per_s": rows / (time.monotonic() - began)}


def _rows(topic: str, count: int, first: int) -> Iterator[dict[str, Any]]:
    """A fact each of so many numbers."""
    for n in range(first, first + count):
        yield next(value for name, value in facts_of(number_of(n), 2) if name == topic)


def _write_csv(folder: Path, count: int, first: int) -> Path:
    path = folder / "objections.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = list(_rows("objections", count, first))
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _write_lines(folder: Path, count: int, first: int) -> Path:
    path = folder / "consents.jsonl"
    with path.open("wb") as file:
        file.writelines(msgspec.json.encode(row) + b"\n" for row in _rows("consents", count, first))
    return path
