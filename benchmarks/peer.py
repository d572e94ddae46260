"""Kafka Streams, the peer written in Java: built where there are Maven and a Java of its own, and otherwise left out, aloud."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.servers import say

_FOLDER = Path(__file__).parent / "peers" / "kafka-streams"
NAME = "kafka-streams"
_OLDEST_JAVA = 17
#: Java compiles while it runs: after 2,000 requests a backlog goes at a quarter of the rate that it has after 120,000.
_WARM_UP = 120_000
#: The first build fetches its libraries.
_BUILT_WITHIN_S = 600.0


def kafka_streams() -> Contender | str:
    """Build the peer.

    Returns:
        What to run, or why there is none.
    """
    java, maven = shutil.which("java"), shutil.which("mvn")
    if java is None or maven is None:
        return f"there is no {'java' if java is None else 'mvn'} on the PATH"
    if (found := java_version(java)) < _OLDEST_JAVA:
        return f"the java on the PATH is {found}, and it needs {_OLDEST_JAVA}"
    say("building the peer on Kafka Streams")
    try:
        built = subprocess.run(
            [maven, "-q", "-B", "package"], cwd=_FOLDER, capture_output=True, text=True, timeout=_BUILT_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it cannot be built: {error}"
    if built.returncode:
        said = (built.stdout + built.stderr).strip().splitlines()
        return f"it cannot be built: {said[0] if said else f'Maven ended with code {built.returncode}'}"
    command = java, "-jar", str(_FOLDER / "target" / "peer.jar")
    return Contender(NAME, "Kafka Streams", command, frozenset({"consents", "objections"}), says_ready=True, warm_up=_WARM_UP)


def java_version(java: str) -> int:
    """The feature version of a Java, 17 for 17.0.15; 0 where it does not say."""
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    return int(found.group(1)) if found else 0
