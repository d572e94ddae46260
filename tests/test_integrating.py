"""The examples of docs/integrating.md do what the page says, and dial on nothing but a yes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lupa import luajit21  # the other Luas of this package cannot start programs

from config.clock import Clock
from ops.client import Reason
from rules.instants import SECOND, format_instant, parse_instant
from tests.load.__main__ import _options
from tests.scene import CALLER_NUMBER, NOW, consent, numbers, objection, request, running_scene
from tests.test_gateway import DIAL, served

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "integrating.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NUMBER = "+31612345678"


class Reply(NamedTuple):
    """What the stand-in for a gateway answers."""

    status: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()


def decision(asked: dict[str, Any], **fields: Any) -> bytes:
    """An approval of a request, valid for a minute."""
    value = {**asked, "decision": "approved", "basis": "OK_CONSENT", "reasons": [], "valid_until": later(60)}
    return json.dumps({**value, **fields}).encode()


def later(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


class Gateway:
    """Answers over HTTP as a test says; ``asked`` are the requests that came."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer: Callable[[dict[str, Any]], Reply] = lambda asked: Reply(200, decision(asked))
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                gateway.asked.append(asked)
                gateway.keys.append(self.headers["Authorization"])
                reply = gateway.answer(asked)
                self.send_response(reply.status)
                for name, value in (*reply.headers, ("Content-Length", str(len(reply.body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        (folder / "dial.key").write_text(f"{DIAL}\n")
        self.call = json.loads((EXAMPLES / "call.json").read_text()) | {"gateway": self.url, "key_file": str(folder / "dial.key")}
        self.call_file = folder / "call.json"
        self.write()

    def write(self, **fields: Any) -> None:
        """Write call.json, with other fields."""
        self.call |= fields
        self.call_file.write_text(json.dumps(self.call))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    threading.Thread(target=gateway.server.serve_forever, args=(0.02,), daemon=True).start()
    yield gateway
    gateway.server.shutdown()
    gateway.server.server_close()


@pytest.fixture
def ask_http(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import ask_http as module  # noqa: PLC0415

    return module


def command(call_file: Path, number: str = NUMBER) -> subprocess.CompletedProcess[str]:
    """The example as a command."""
    words = [sys.executable, str(EXAMPLES / "ask_http.py"), str(call_file), number]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


# --- over HTTP ------------------------------------------------------------------------------------------------------------------


def test_an_approval_is_a_yes(gateway: Gateway, ask_http: Any) -> None:
    """The request holds what call.json says, the number and now; the key goes along."""
    assert ask_http.may_dial(gateway.call, NUMBER) == (True, "OK_CONSENT")
    (asked,) = gateway.asked
    assert {**asked, "request_id": "", "dial_at": ""} == {**gateway.call["request"], "request_id": "", "number": NUMBER, "dial_at": ""}
    assert abs(parse_instant(asked["dial_at"]) - time.time_ns() // 1000) < 10 * SECOND
    assert gateway.keys == [f"Bearer {DIAL}"]


NO_ANSWERS = {
    "blocked": (lambda asked: Reply(200, decision(asked, decision="blocked", reasons=["E_MINOR", "E_BMNR"])), "E_MINOR, E_BMNR"),
    "without a key": (lambda _: Reply(401), "the gateway answers 401"),
    "broken record": (lambda _: Reply(422), "the gateway answers 422"),
    "an error that approves": (lambda asked: Reply(500, decision(asked)), "the gateway answers 500"),
    "a success that is none": (lambda asked: Reply(202, decision(asked)), "no answer: ValueError"),
    "no JSON": (lambda _: Reply(200, b"approved"), "no answer: JSONDecodeError"),
    "no decision": (lambda _: Reply(200, b"{}"), "no answer: KeyError"),
    "a list": (lambda _: Reply(200, b"[]"), "no answer: TypeError"),
    "another request": (lambda asked: Reply(200, decision(asked, request_id="q-2")), "the answer is to another request"),
    "another number": (lambda asked: Reply(200, decision(asked, number="+31687654321")), "the answer is to another request"),
    "over": (lambda asked: Reply(200, decision(asked, valid_until=later(1))), "the approval is over"),
    "without an end": (lambda asked: Reply(200, decision(asked, valid_until=None)), "no answer: AttributeError"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_whatever_is_no_approval_is_a_no(gateway: Gateway, ask_http: Any, case: str) -> None:
    gateway.answer, why = NO_ANSWERS[case]
    assert ask_http.may_dial(gateway.call, NUMBER) == (False, why)


@pytest.mark.parametrize("status", [429, 503])
def test_what_was_not_decided_is_asked_again_as_it_was(gateway: Gateway, ask_http: Any, status: int) -> None:
    """Once, with the same request_id: a repeat gets the first answer."""
    gateway.answer = lambda asked: Reply(200, decision(asked)) if len(gateway.asked) > 1 else Reply(status)
    assert ask_http.may_dial(gateway.call, NUMBER)[0]
    assert gateway.asked[0] == gateway.asked[1]
    gateway.answer = lambda _: Reply(status)
    assert ask_http.may_dial(gateway.call, NUMBER) == (False, f"the gateway answers {status}")
    assert len(gateway.asked) == 4


def test_a_gateway_that_is_slow_or_away_is_a_no(gateway: Gateway, ask_http: Any) -> None:
    """Within the time limit, twice."""
    done = threading.Event()

    def late(asked: dict[str, Any]) -> Reply:
        done.wait(5)
        return Reply(200, decision(asked))

    gateway.answer = late
    try:
        assert ask_http.may_dial(gateway.call | {"timeout_s": 0.1}, NUMBER) == (False, "no answer: TimeoutError")
    finally:
        done.set()
    assert len(gateway.asked) == 2
    assert ask_http.may_dial(gateway.call | {"gateway": "http://127.0.0.1:1"}, NUMBER) == (False, "no answer: URLError")
    assert ask_http.may_dial(gateway.call | {"key_file": "/nowhere"}, NUMBER) == (False, "no answer: FileNotFoundError")


def test_the_key_is_sent_nowhere_else(gateway: Gateway, ask_http: Any) -> None:
    """A redirect is not followed."""
    gateway.answer = lambda _: Reply(302, headers=(("Location", f"{gateway.url}/elsewhere"),))
    assert ask_http.may_dial(gateway.call, NUMBER) == (False, "the gateway answers 302")
    assert len(gateway.asked) == 1


def test_the_command_shown_prints_what_is_shown(gateway: Gateway) -> None:
    """With a gateway that is away."""
    gateway.write(gateway="http://127.0.0.1:1")
    done = command(gateway.call_file)
    assert (done.returncode, done.stderr) == (1, "")
    shown = f"$ python3 docs/examples/ask_http.py docs/examples/call.json {NUMBER}\n{done.stdout}"
    assert shown in [text for _, text in BLOCKS]


@pytest.mark.broker
async def test_the_real_gateway_is_asked(kafka: str, redis_url: str, gateway: Gateway) -> None:
    """Research that promotes nothing may call at any hour, until the person objects to all."""
    of, other = numbers(2)
    async with running_scene(kafka, redis_url) as guard:
        guard.worker.guard.clock = guard.clock = Clock()  # type: ignore[assignment]  # all that a clock is asked for is now()
        async with served(guard) as gate:
            research = {
                "advertiser_id": "A", "campaign_id": "c-1", "purpose": "research", "promotion": "none", "dialling_mode": "manual",
                "cli": {"number": CALLER_NUMBER, "withheld": False},
            }  # fmt: skip
            gateway.write(gateway=gate.server.url.rstrip("/"), request=research)
            done = await asyncio.to_thread(command, gateway.call_file, of)
            assert (done.returncode, done.stdout) == (0, "dial\n"), done
            gateway.write(request={**research, "purpose": "commercial"})
            done = await asyncio.to_thread(command, gateway.call_file, other)
            assert (done.returncode, done.stdout) == (1, "do not dial: E_FACTS_INCOMPLETE\n"), done


# --- AGI ------------------------------------------------------------------------------------------------------------------------


@contextmanager
def agi(*words: str) -> Iterator[subprocess.Popen[str]]:
    """The script as Asterisk starts it: it has been told of the channel."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    script = subprocess.Popen([sys.executable, str(EXAMPLES / "agi_may_dial.py"), *words], **pipes, text=True)
    with script:
        assert script.stdin is not None
        script.stdin.write("agi_request: agi_may_dial.py\nagi_channel: PJSIP/agent-1\nagi_extension: 31612345678\n\n")
        script.stdin.flush()
        yield script


def commands(script: subprocess.Popen[str]) -> list[str]:
    """What the script tells Asterisk to do; each command is answered before the next comes."""
    assert script.stdin is not None
    assert script.stdout is not None
    told = []
    while line := script.stdout.readline():
        told.append(line.rstrip())
        script.stdin.write("200 result=1\n")
        script.stdin.flush()
    return told


def test_the_agi_script_says_yes_and_no(gateway: Gateway) -> None:
    """The reason into Asterisk's log, then the variable."""
    with agi(str(gateway.call_file), NUMBER) as script:
        assert commands(script) == ['VERBOSE "ringfence: dial, OK_CONSENT" 3', "SET VARIABLE MAY_DIAL yes"]
    gateway.answer = lambda _: Reply(401)
    with agi(str(gateway.call_file), NUMBER) as script:
        assert commands(script) == ['VERBOSE "ringfence: do not dial, the gateway answers 401" 3', "SET VARIABLE MAY_DIAL no"]


def test_an_agi_script_that_fails_sets_nothing(gateway: Gateway) -> None:
    """So the dialplan's `no` stands."""
    for words in ([], ["/nowhere", NUMBER]):
        with agi(*words) as script:
            assert commands(script) == []
        assert script.returncode == 1
    for dialplan in (text for _, text in BLOCKS if "AGI(agi_may_dial.py" in text):
        assert dialplan.index("Set(MAY_DIAL=no)") < dialplan.index("AGI(agi_may_dial.py") < dialplan.index('"${MAY_DIAL}" = "yes"')


# --- FreeSWITCH -----------------------------------------------------------------------------------------------------------------


class Session:
    """A stand-in for FreeSWITCH's."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def execute(self, application: str, data: str) -> None:
        self.done.append((application, data))

    def hangup(self, cause: str) -> None:
        self.done.append(("hangup", cause))

    def consoleLog(self, _level: str, _text: str) -> None:  # noqa: N802  # its name there
        """Say nothing."""


def lua(tmp_path: Path, answer: str, call_file: str = "/etc/ringfence/call.json", number: str = NUMBER) -> list[tuple[str, ...]]:
    """Run the script with a program that prints an answer in place of ask_http.py. Returns what it did with the session."""
    program = tmp_path / "ask.sh"
    program.write_text(f"touch {tmp_path}/ran\n{answer}\n")
    source = (EXAMPLES / "may_dial.lua").read_text().replace("python3 /usr/local/bin/ask_http.py", f"sh {program}")
    runtime, session = luajit21.LuaRuntime(), Session()
    runtime.globals().session, runtime.globals().argv = session, runtime.table(call_file, number, "sofia/gateway/carrier/1")
    runtime.execute(source)
    return session.done


def test_the_lua_script_bridges_on_a_yes_alone(tmp_path: Path) -> None:
    assert lua(tmp_path, "echo dial") == [("bridge", "sofia/gateway/carrier/1")]
    for answer in ("echo do not dial: E_OBJECTION; exit 1", "exit 1", "echo dialled", "echo; echo dial"):
        assert lua(tmp_path, answer) == [("hangup", "CALL_REJECTED")]


@pytest.mark.parametrize("words", [{"number": "+316; touch x"}, {"number": ""}, {"call_file": "$(touch x)"}])
def test_the_lua_script_runs_nothing_but_the_question(tmp_path: Path, words: dict[str, str]) -> None:
    assert lua(tmp_path, "echo dial", **words) == [("hangup", "CALL_REJECTED")]
    assert not (tmp_path / "ran").exists()


# --- over Kafka -----------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
async def test_the_dialler_dials_what_it_may(kafka: str, redis_url: str, tmp_path: Path) -> None:
    """One call that is approved, one to a person who objected."""
    free, objected = numbers(2)
    offset_s = parse_instant(NOW) / SECOND - time.time()
    async with running_scene(kafka, redis_url, clock_offset_s=offset_s) as guard:
        settings = guard.client.settings
        guard.worker.guard.clock = clock = Clock.from_settings(settings)
        await guard.client.put_all([consent(free), consent(objected), objection(objected)])
        calls = [
            request(of, request_id=name, dial_at=format_instant(clock.now())) for name, of in (("q-free", free), ("q-no", objected))
        ]
        (tmp_path / "calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "RINGFENCE_KAFKA": kafka, "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
            "RINGFENCE_CLOCK_OFFSET_S": str(offset_s),
        }  # fmt: skip
        words = [sys.executable, str(EXAMPLES / "dialler.py"), str(tmp_path / "calls.jsonl")]
        done = await asyncio.to_thread(
            subprocess.run, words, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=tmp_path
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["q-free: dialled", "q-no: not dialled, not approved, E_OBJECTION"]


# --- the page -------------------------------------------------------------------------------------------------------------------


def test_what_is_shown_of_an_example_stands_in_it() -> None:
    """Or runs by itself: the three lines for a dialler that places calls itself."""
    files = [path.read_text(encoding="utf-8") for path in EXAMPLES.iterdir() if path.is_file()]
    shown = [text for kind, text in BLOCKS if kind in {"python", "json", "lua"}]
    assert len(shown) == 3
    assert [text for text in shown if not any(text in file for file in files)] == [
        text for text in shown if "originate(number)" in text
    ]


def test_the_three_lines_originate_on_a_yes_alone(gateway: Gateway, ask_http: Any) -> None:
    (lines,) = [text for _, text in BLOCKS if "originate(number)" in text]
    originated: list[str] = []
    names = {"call": gateway.call, "number": NUMBER, "originate": originated.append}
    exec(lines, dict(names))  # noqa: S102
    gateway.answer = lambda _: Reply(503)
    exec(lines, dict(names))  # noqa: S102
    assert originated == [NUMBER]


def test_every_reason_of_the_gate_is_explained() -> None:
    section = PAGE.split("| `reason` | |")[1].split("What a yes promises")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == [reason.value for reason in Reason]


def test_the_load_commands_shown_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dial.key").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"^python -m tests\.load (.*)$", PAGE, re.MULTILINE)
    options = [_options(words.split()) for words in shown]
    assert [(one.workers, one.http, one.key) for one in options] == [(2, None, None), (1, "http://127.0.0.1:8080", "secret")]
