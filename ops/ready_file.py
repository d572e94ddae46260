"""The file ``RINGFENCE_READY_FILE``: in it ``ringfence worker`` says whether it is ready, and ``ringfence ready`` repeats it.

Its content is of the last look; its time of change is that at which the worker was last ready.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

STALE_S = 10.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a worker is not ready: a code that stays the same, and a sentence with today's figures."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


class ReadyFile:
    """The writing side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_ready = 0.0

    def write(self, reasons: list[Reason], partitions: int) -> None:
        """Replace the file in one step. No reasons: ready.

        Raises:
            OSError: it cannot be written.
        """
        at = datetime.now(UTC)
        if not reasons:
            self._last_ready = at.timestamp()
        state = {"ready": not reasons, "reasons": list(map(asdict, reasons)), "partitions": partitions, "at": at.isoformat()}
        written = self._path.with_name(self._path.name + ".new")
        written.write_text(json.dumps(state) + "\n")
        os.utime(written, (at.timestamp(), self._last_ready))
        written.replace(self._path)


def why_not_ready(path: Path) -> list[str]:
    """What the worker says that writes the file, or that it says nothing; empty if it is ready."""
    try:
        state = json.loads(path.read_text())
        age_s = (datetime.now(UTC) - datetime.fromisoformat(state["at"])).total_seconds()
        reasons = [str(Reason(**reason)) for reason in state["reasons"]]
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    except (ValueError, KeyError, TypeError):
        return [f"{path} is not what a worker writes"]
    if abs(age_s) > STALE_S:
        return [f"the worker has not said anything for {age_s:.0f} s", *reasons]
    return reasons
