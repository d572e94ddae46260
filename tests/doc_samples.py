"""The code samples of the pages: found, and run as a reader would type them.

A fenced block names its language:

- ``sh`` is run. Where lines begin with ``$ `` each of them is a command, and what stands below it is what it has to print (``...``
  stands for anything, blanks do not count); otherwise the block is one script. What is exported holds for the rest of the page.
- ``python`` is run, ``json`` and ``toml`` are read.
- ``text`` is a picture or an output without its command.

A comment directly above a block says what is different about it::

    <!-- not run: why -->
    <!-- keeps running -->          the command goes on in the background while the rest is run; what is shown is waited for
    <!-- exit code: 1 -->
    <!-- file: examples/ask.py -->  the block is this file, beside the page
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

COMMAND_WITHIN_S = 120.0
START_WITHIN_S = 120.0
#: Ports that the pages name. A machine may have something else there, so free ones are taken in their place.
PORTS = ("9092", "6379", "8080")

_FENCED = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REMARK = re.compile(r"<!-- (not run|keeps running|exit code|file)(?:: (.+?))? -->\n\Z")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")


class Differs(AssertionError):
    """A sample does not do what its page says; the message shows both."""


@dataclass(frozen=True)
class Sample:
    """One fenced block: where it stands, and what the comment above it says (``remark`` and its ``value``)."""

    page: Path
    line: int
    language: str
    text: str
    remark: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        first = self.text.splitlines()[0] if self.text.strip() else "empty"
        return f"{self.page.relative_to(ROOT)}:{self.line}: {first}"

    @property
    def not_run(self) -> str | None:
        """Why it is not run; None if it is."""
        return (self.value or "") if self.remark == "not run" else None


@dataclass(frozen=True)
class Step:
    """A command, and what the page shows below it; None if it shows nothing."""

    command: str
    shown: str | None


def samples(page: Path) -> list[Sample]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCED.finditer(text):
        remark = _REMARK.search(text, max(0, match.start() - 400), match.start())
        said = remark.groups() if remark is not None else (None, None)
        found.append(Sample(page, text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2), *said))
    return found


def steps(text: str) -> list[Step]:
    """The commands of a block of ``sh``."""
    if not re.search(r"^\$ ", text, re.MULTILINE):
        return [Step(text, None)]
    found = list[Step]()
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            found.append(Step(_whole(line[2:], lines), None))
        elif found:
            last = found.pop()
            found.append(Step(last.command, f"{last.shown or ''}{line}\n"))
        elif line.strip():
            raise Differs(f"stands above the first command: {line}")
    return found


def _whole(command: str, lines: Iterator[str]) -> str:
    """A command with the lines that belong to it: after a backslash, within quotes, or a here-document."""
    if heredoc := _HEREDOC.search(command):
        for line in lines:
            command += f"\n{line}"
            if line == heredoc.group(1):
                break
        return command
    while command.endswith("\\") or not _closed(command):
        command += f"\n{next(lines)}"
    return command


def _closed(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def is_as_shown(shown: str, printed: str, *, whole: bool = True) -> bool:
    """Whether a command printed what its page shows; ``whole`` false: among other things."""
    pattern = ".*".join(re.escape(re.sub(r"\s+", "", part)) for part in shown.split("..."))
    squeezed = re.sub(r"\s+", "", printed)
    find = re.fullmatch if whole else re.search
    return find(pattern, squeezed, re.DOTALL) is not None


class Reader:
    """Somebody who follows the pages in a clone of the project; each page, and each program that runs on, in its own terminal.

    Args:
        folder: stands for the clone: what lies in the project is linked there, and what the samples write stays there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {port: str(_free_port()) for port in PORTS}
        self._stopping = ExitStack()
        for entry in ROOT.iterdir():
            if not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry)
        programs = folder / "bin"
        programs.mkdir()
        for name, module in {"ringfence": "-P -m ops.cli", "python": "", "python3": ""}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
            (programs / name).chmod(0o755)
        #: What a page begins with.
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.close()

    def follow(self, page: Path) -> dict[str, str]:
        """Run every sample of a page that is to be run. Returns the environment at its end.

        Raises:
            Differs: something is not as the page says.
        """
        environment = dict(self.environment)
        for sample in samples(page):
            if sample.not_run is not None or sample.language not in {"sh", "python"}:
                continue
            try:
                if sample.language == "python":
                    self._run_python(sample, environment)
                elif sample.remark == "keeps running":
                    self._keep_running(sample, environment)
                else:
                    self._run_shell(sample, environment)
            except Differs as difference:
                raise Differs(f"{sample}\n{difference}") from None
        return environment

    def _run_python(self, sample: Sample, environment: dict[str, str]) -> None:
        if sample.remark == "file":
            assert sample.value is not None  # "file" has one
            if (sample.page.parent / sample.value).read_text(encoding="utf-8") != sample.text:
                raise Differs(f"{sample.value} is another text")
            return
        command = [sys.executable, "-c", self._on_free_ports(sample.text)]
        done = subprocess.run(
            command, env=environment, cwd=self._folder, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False
        )
        if done.returncode:
            raise Differs(done.stdout + done.stderr)

    def _run_shell(self, sample: Sample, environment: dict[str, str]) -> None:
        wanted = int(sample.value or 0) if sample.remark == "exit code" else 0
        for step in steps(sample.text):
            command, shown = self._on_free_ports(step.command), step.shown
            printed, code = self._command(command, environment)
            if code != wanted:
                raise Differs(f"{command}\nends with {code}, not {wanted}:\n{printed}")
            if shown is not None and not is_as_shown(self._on_free_ports(shown), printed):
                raise Differs(f"{command}\nprints:\n{printed}\nThe page shows:\n{shown}")

    def _command(self, command: str, environment: dict[str, str]) -> tuple[str, int]:
        """Run a command line. Returns what it printed on both outputs, and its exit code; what it exports is kept."""
        with tempfile.NamedTemporaryFile() as exported:
            done = subprocess.run(
                ["bash", "-c", f"trap 'env -0 > {exported.name}' EXIT\nset -e\n{command}\n"],
                env=environment, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=COMMAND_WITHIN_S, check=False,
            )  # fmt: skip
            kept = exported.read().decode().split("\0")
        environment.update(entry.split("=", 1) for entry in kept if "=" in entry)
        return done.stdout, done.returncode

    def _keep_running(self, sample: Sample, environment: dict[str, str]) -> None:
        """Start a program and wait until it has printed what is shown. It is stopped with the reader."""
        (step,) = steps(sample.text)
        command, shown = self._on_free_ports(step.command), self._on_free_ports(step.shown or "")
        output = self._folder / f"{sample.line}.log"
        program = subprocess.Popen(
            ["bash", "-c", command], env=environment, cwd=self._folder, stdin=subprocess.DEVNULL,
            stdout=self._stopping.enter_context(output.open("wb")), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._stopping.callback(_stop, program)
        deadline = time.monotonic() + START_WITHIN_S
        while not is_as_shown(shown, printed := output.read_text(encoding="utf-8"), whole=False):
            if program.poll() is not None or time.monotonic() > deadline:
                raise Differs(f"{command}\nended with {program.poll()} or printed nothing like what is shown:\n{printed}")
            time.sleep(0.05)

    def _on_free_ports(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: self._ports[match.group(1)], text)


def _stop(program: subprocess.Popen[bytes]) -> None:
    if program.poll() is None:
        os.killpg(program.pid, signal.SIGTERM)  # a session of its own, so a group of its own
    program.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
