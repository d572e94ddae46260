"""The demo, for real: embedded servers, a worker, a made-up day, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config.settings import Settings
from ops.watch import run_watch

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "ops.cli", "demo"]


def environment(folder: Path) -> dict[str, str]:
    """A production address that the demo must not touch, and a folder in which it must leave nothing."""
    return {
        **os.environ,
        "RINGFENCE_KAFKA": "192.0.2.1:9092",
        "RINGFENCE_REDIS": "redis://192.0.2.1:6379/0",
        "RINGFENCE_KAFKA_SECURITY": "SASL_SSL",
        "TMPDIR": str(folder),
    }


@pytest.mark.broker
@pytest.mark.slow
def test_the_demo_ends_with_a_summary_and_every_request_decided(tmp_path):
    """Over a pipe: plain text, exit code 0, one decision for each request, no temporary file."""
    done = subprocess.run(
        [*COMMAND, "--seconds", "5"],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    counted = re.search(r"^each of the ([0-9,]+) requests got exactly one decision$", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout
    assert int(counted[1].replace(",", "")) > 1000
    assert re.search(r"^dashboard: http://127\.0\.0\.1:[0-9]+/#key=\S{20,}$", done.stderr, re.MULTILINE), done.stderr
    assert "approved" in done.stdout
    assert "E_OBJECTION" in done.stdout
    assert re.search(r"^latency p50 .*, p99 ", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.broker
@pytest.mark.slow
def test_ctrl_c_ends_the_demo_with_its_summary(tmp_path):
    """Exit code 130, and what it had counted so far."""
    demo = subprocess.Popen(
        [*COMMAND, "--forever"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(tmp_path)
    )
    try:
        assert demo.stdout is not None
        first = demo.stdout.readline()
        assert "decisions/s" in first
        time.sleep(1)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 130, err
    assert "exactly one decision" in out
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_makes_no_sense_is_refused(capsys):
    from ops.demo import DemoOptions, run_demo  # noqa: PLC0415  # needs the stream's libraries, which the other tests do without

    assert run_demo(DemoOptions(rate=0)) == 2
    assert run_demo(DemoOptions(seconds=-1)) == 2
    assert run_demo(DemoOptions(workers=0)) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_watching_a_broker_that_is_not_there_says_so(capsys):
    """Exit code 3 with address and reason, within seconds."""
    assert run_watch(Settings(kafka="127.0.0.1:1"), seconds=1, json_output=False) == 3
    err = capsys.readouterr().err
    assert "127.0.0.1:1" in err
    assert err.count("\n") == 1
