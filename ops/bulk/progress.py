"""How far an import has come, kept beside its file so that the same command goes on from there."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from rules.errors import CannotStart


class Progress(msgspec.Struct):
    """An import of one file into one topic (name with prefix). ``line`` is the last row that is done: published, or in the side file.

    ``size`` and ``modified_ns`` tell the file from a later one of its name.
    """

    topic: str
    size: int
    modified_ns: int
    line: int = 0
    published: int = 0
    bad: int = 0


def beside(path: Path) -> Path:
    """Where the progress of a file's import is kept."""
    return path.with_name(f"{path.name}.import.json")


def begin_or_go_on(path: Path, topic: str, *, restart: bool) -> Progress:
    """The progress of an earlier run that did not come to its end, or a new one.

    Raises:
        CannotStart: there is an earlier run, but of another topic or of a file that has changed since.
    """
    stat = path.stat()
    fresh = Progress(topic, stat.st_size, stat.st_mtime_ns)
    kept = beside(path)
    if restart or not kept.exists():
        return fresh
    try:
        earlier = msgspec.json.decode(kept.read_bytes(), type=Progress)
    except msgspec.MsgspecError:
        raise CannotStart(f"{kept} cannot be read; --restart begins anew") from None
    if (earlier.topic, earlier.size, earlier.modified_ns) != (fresh.topic, fresh.size, fresh.modified_ns):
        raise CannotStart(
            f"{kept} is of an import into {earlier.topic} of a file that was another one, or is another by now; --restart begins anew"
        )
    return earlier


def keep(path: Path, progress: Progress) -> None:
    """Write the progress down, whole or not at all."""
    kept = beside(path)
    new = kept.with_name(f"{kept.name}.new")
    new.write_bytes(msgspec.json.encode(progress))
    os.replace(new, kept)  # noqa: PTH105  # replaces on every system


def done(path: Path) -> None:
    """The import has come to its end; the same command begins anew."""
    beside(path).unlink(missing_ok=True)
