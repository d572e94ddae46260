"""The offline door's bad lines: each gives an error that names its field, never a crash, a hang or a decision."""

# ruff: noqa: RUF001  # digits of other scripts are what is tested

from __future__ import annotations

import copy
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.rulebook import load_rulebook
from ops import door
from ops.door import MAX_LINE_BYTES, decide_lines
from rules.events import MAX_RECORD_BYTES
from tests.scene import REFERENCE, callee, consent, objection, outcome, relationship, request

ROOT = Path(__file__).resolve().parent.parent
BOOK = load_rulebook()
OF = "+31612345678"

Line = dict[str, Any]

FACTS = [*REFERENCE, callee(OF), consent(OF), outcome(OF, "no_answer"), relationship(OF), objection(OF, advertiser_id="somebody else")]
PARTY, CAMPAIGN, CALLER, CALLEE, CONSENT, OUTCOME, RELATIONSHIP, OBJECTION = range(8)


def good_line(case: Any = "good") -> Line:
    return copy.deepcopy({"case": case, "facts": [{"topic": topic, "value": value} for topic, value in FACTS], "request": request(OF)})


def answers(raw: bytes) -> list[tuple[dict[str, Any], bool]]:
    return [(json.loads(answer), is_decision) for answer, is_decision in decide_lines(io.BytesIO(raw), BOOK)]


def error_of(raw: bytes) -> dict[str, Any]:
    """The error of a line between two good ones, which are decided."""
    good = json.dumps(good_line()).encode()
    before, bad, after = answers(good + b"\n" + raw + b"\n" + good)
    for answer, is_decision in (before, after):
        assert is_decision
        assert (answer["decision"], answer["case"]) == ("approved", "good")
    assert bad[1] is False
    assert bad[0].keys() == {"case", "error"}
    assert bad[0]["error"].keys() == {"code", "field", "message"}
    assert len(bad[0]["error"]["message"]) < 500
    return bad[0]


def put(path: str, value: Any) -> Callable[[Line], None]:
    """Set what stands at a dotted path."""

    def change(line: Line) -> None:
        *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        place: Any = line
        for part in way:
            place = place[part]
        place[last] = value

    return change


def without(path: str) -> Callable[[Line], None]:
    def change(line: Line) -> None:
        *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        place: Any = line
        for part in way:
            place = place[part]
        del place[last]

    return change


def test_the_good_line_is_good() -> None:
    """What all others are broken from."""
    ((answer, is_decision),) = answers(json.dumps(good_line()).encode())
    assert is_decision
    assert (answer["decision"], answer["basis"], answer["as_of"], answer["missing"]) == ("approved", "OK_CONSENT", {}, [])
    assert answer["decided_at"] == answer["dial_at"]


NO_NUMBERS = [
    "0612345678",
    "31612345678",
    "+0612345678",
    "+316123",
    "+3161234567890123",
    "+31 612345678",
    "+31612345678\n",
    " +31612345678",
    "++31612345678",
    "+31-6-12345678",
    "+٣١٦١٢٣٤٥٦٧٨",
    "+３１６１２３４５６７８",
    "+3161234567²",
    "＋31612345678",
    "tel:+31612345678",
    "+31612345678;ext=1",
    "",
]
NO_INSTANTS = [
    "2026-11-23T13:00:00",
    "2026-11-23",
    "2026-02-30T13:00:00Z",
    "2025-02-29T13:00:00Z",
    "2026-13-01T13:00:00Z",
    "2026-11-23T25:00:00Z",
    "2026-11-23T13:60:00Z",
    "2016-12-31T23:59:60Z",
    "2026-11-23T13:00:00+24:00",
    "2026-11-23T13:00:00+0100",
    "2026-11-23T13:00Z",
    "20261123T130000Z",
    "2026-W48-1T13:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:00",
    "9999-12-31T23:59:59-23:00",
    "２０２６-11-23T13:00:00Z",
    "2026-11-23T13:00:00Z\n",
    "yesterday",
    "",
]
NO_DAYS = ["2026-02-30", "2026-11-23T13:00:00Z", "23-11-2026", "2026-1-1", "20261123", "0000-01-01", "2026-11-２３", ""]

BROKEN: list[tuple[Callable[[Line], None], str, str]] = [
    # What a line needs.
    (without("facts"), "missing", "facts"),
    (put("facts", None), "missing", "facts"),
    (without("request"), "missing", "request"),
    (put("request", None), "missing", "request"),
    (without("facts.4.topic"), "missing", "facts.4.topic"),
    (without("facts.4.value"), "missing", "facts.4.value"),
    (put("facts", {}), "type", "facts"),
    (put("facts", "none"), "type", "facts"),
    (put("facts.4", []), "type", "facts.4"),
    (put("facts.4", None), "type", "facts.4"),
    (put("facts.4.topic", 7), "type", "facts.4.topic"),
    (put("facts.4.value", []), "type", "facts.4.value"),
    (put("facts.4.value", "x"), "type", "facts.4.value"),
    (put("request", []), "type", "request"),
    (put("request", 1), "type", "request"),
    (put("facts.4.topic", "consent"), "unknown_topic", "facts.4.topic"),
    (put("facts.4.topic", "ringfence.consents"), "unknown_topic", "facts.4.topic"),
    (put("facts.4.topic", "call-requests"), "unknown_topic", "facts.4.topic"),
    (put("facts.4.topic", "approved-calls"), "unknown_topic", "facts.4.topic"),
    # What a record needs.
    (without("request.request_id"), "missing", "request.request_id"),
    (without("request.dial_at"), "missing", "request.dial_at"),
    (without("request.cli"), "missing", "request.cli"),
    (without("request.cli.withheld"), "missing", "request.cli.withheld"),
    (put("request.campaign_id", None), "missing", "request.campaign_id"),
    (without("facts.4.value.at"), "missing", "facts.4.value.at"),
    (without("facts.4.value.capture"), "missing", "facts.4.value.capture"),
    (put("facts.4.value.party_ids", None), "missing", "facts.4.value.party_ids"),
    (without("facts.5.value.campaign_id"), "missing", "facts.5.value.campaign_id"),
    (without("facts.6.value.relationship_id"), "missing", "facts.6.value.relationship_id"),
    (without("facts.7.value.event_id"), "missing", "facts.7.value.event_id"),
    (without("facts.0.value.party_id"), "missing", "facts.0.value.party_id"),
    (put("facts.0.value.balance_tests", [{"term_months": 12}]), "missing", "facts.0.value.balance_tests.0.dated"),
    # Wrong types: text for a number, 1 for true, a list for an object.
    (put("request.own_offer", 1), "type", "request.own_offer"),
    (put("request.own_offer", "true"), "type", "request.own_offer"),
    (put("request.cli", []), "type", "request.cli"),
    (put("request.cli.withheld", 0), "type", "request.cli.withheld"),
    (put("request.subject", 5), "type", "request.subject"),
    (put("request.subject", ["energy"]), "type", "request.subject"),
    (put("request.dial_at", 1795438800), "type", "request.dial_at"),
    (put("request.number", 31612345678), "type", "request.number"),
    (put("request.scrubbed_on", 20200101), "type", "request.scrubbed_on"),
    (put("facts.3.value.age", "44"), "type", "facts.3.value.age"),
    (put("facts.3.value.age", 44.5), "type", "facts.3.value.age"),
    (put("facts.3.value.age", value=True), "type", "facts.3.value.age"),
    (put("facts.4.value.party_ids", "A"), "type", "facts.4.value.party_ids"),
    (put("facts.4.value.party_ids", ["A", 1]), "type", "facts.4.value.party_ids.1"),
    (put("facts.4.value.evidence", "https://example.org"), "type", "facts.4.value.evidence"),
    (put("facts.1.value.abandoned_share_24h", "0.01"), "type", "facts.1.value.abandoned_share_24h"),
    (put("facts.1.value.abandoned_share_24h", value=False), "type", "facts.1.value.abandoned_share_24h"),
    # Codes that nobody knows.
    (put("request.purpose", "Commercial"), "enum", "request.purpose"),
    (put("request.promotion", "some"), "enum", "request.promotion"),
    (put("request.dialling_mode", ""), "enum", "request.dialling_mode"),
    (put("facts.4.value.kind", "renewed"), "enum", "facts.4.value.kind"),
    (put("facts.4.value.channels", ["telephone", "fax"]), "enum", "facts.4.value.channels.1"),
    (put("facts.5.value.result", "answered"), "enum", "facts.5.value.result"),
    (put("facts.3.value.legal_form", "bv"), "enum", "facts.3.value.legal_form"),
    (put("facts.3.value.country", "Nederland"), "enum", "facts.3.value.country"),
    (put("facts.3.value.country", "XX"), "enum", "facts.3.value.country"),
    (put("facts.7.value.scope", "everyone"), "enum", "facts.7.value.scope"),
    (put("facts.2.value.tariff", "cheap"), "enum", "facts.2.value.tariff"),
    # Values that cannot be.
    (put("request.request_id", ""), "format", "request.request_id"),
    (put("request.request_id", "q" * 129), "format", "request.request_id"),
    (put("facts.3.value.age", -1), "format", "facts.3.value.age"),
    (put("facts.3.value.age", 10**30), "format", "facts.3.value.age"),
    (put("facts.4.value.first_contact_within_months", 10**9), "format", "facts.4.value.first_contact_within_months"),
    (put("facts.1.value.abandoned_share_24h", 1.5), "format", "facts.1.value.abandoned_share_24h"),
    *((put("request.number", text), "format", "request.number") for text in NO_NUMBERS),
    *((put("request.cli.number", text), "format", "request.cli.number") for text in NO_NUMBERS[:3]),
    *((put("facts.7.value.number", text), "format", "facts.7.value.number") for text in NO_NUMBERS[:3]),
    *((put("facts.2.value.number", text), "format", "facts.2.value.number") for text in NO_NUMBERS[:3]),
    *((put("request.dial_at", text), "format", "request.dial_at") for text in NO_INSTANTS),
    *((put("facts.4.value.at", text), "format", "facts.4.value.at") for text in NO_INSTANTS),
    *((put("request.scrubbed_on", text), "format", "request.scrubbed_on") for text in NO_DAYS),
    *((put("facts.4.value.valid_until", text), "format", "facts.4.value.valid_until") for text in NO_DAYS),
    # Keys and nulls.
    (put("facts.4.key", "+31612345679"), "key_mismatch", "facts.4.key"),
    (put("facts.0.key", "B"), "key_mismatch", "facts.0.key"),
    (put("facts.4.key", 31612345678), "type", "facts.4.key"),
    (put("facts.4.value", None), "null_value", "facts.4.value"),
    (put("facts.7.value", None), "null_value", "facts.7.value"),
    (put("facts.0.value", None), "missing", "facts.0.key"),
    # Too much of it.
    (put("request.subject", "x" * 5_000_000), "too_large", "request.subject"),
    (put("request.request_id", "x" * 5_000_000), "format", "request.request_id"),
    (put("facts.7.value.event_id", "x" * 5_000_000), "too_large", "facts.7.value.event_id"),
    (put("facts.7.value.note", "x" * MAX_RECORD_BYTES), "too_large", "facts.7.value"),
    (put("request.note", "x" * 5_000_000), "too_large", "request"),
]


@pytest.mark.parametrize(("change", "code", "field"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_broken_line_is_an_error_with_its_code_and_field(change: Callable[[Line], None], code: str, field: str) -> None:
    """The path goes from the line's root; the case is copied, and the lines before and after are decided."""
    line = good_line(case={"n": 1})
    change(line)
    answer = error_of(json.dumps(line, ensure_ascii=False).encode())
    assert (answer["error"]["code"], answer["error"]["field"], answer["case"]) == (code, field, {"n": 1})


def spelled(old: str, new: str) -> bytes:
    raw = json.dumps(good_line())
    assert raw.count(old) == 1
    return raw.replace(old, new).encode("utf-8", "surrogateescape")


NO_JSON = {
    "nothing of it": b"call me",
    "cut off": json.dumps(good_line()).encode()[:-1],
    "two values": b"{} {}",
    "a key twice": spelled('"purpose":', '"purpose": "commercial", "purpose":'),
    "a fact's key twice": spelled('"kind": "given"', '"kind": "given", "kind": "withdrawn"'),
    "NaN": spelled('"age": 44', '"age": NaN'),
    "Infinity": spelled('"age": 44', '"age": Infinity'),
    "minus Infinity": spelled('"age": 44', '"age": -Infinity'),
    "five thousand brackets": spelled('"age": 44', '"age": ' + "[" * 5000 + "]" * 5000),
    "five thousand open brackets": b"[" * 5000,
    "five thousand objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "no UTF-8": spelled('"energy", "own', '"\udcff\udcfe", "own'),
    "half a surrogate": spelled('"age": 44', '"age": "\\ud800"'),
    "UTF-16": json.dumps(good_line()).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(good_line()).encode(),
    "a number of ten thousand digits": spelled('"age": 44', '"age": ' + "4" * 10_000),
    "a comment": spelled('"age": 44', '"age": 44 /* old */'),
    "single quotes": b"{'case': 1}",
    "zero bytes": b"\x00\x00",
}


@pytest.mark.parametrize("name", NO_JSON)
def test_a_line_that_is_no_json_is_an_error_without_a_case(name: str) -> None:
    """It cannot be read, so its case is null, and the field is the line as a whole."""
    answer = error_of(NO_JSON[name])
    assert (answer["error"]["code"], answer["error"]["field"], answer["case"]) == ("json", "", None)


@pytest.mark.parametrize("raw", [b"[]", b'"text"', b"1", b"null", b"true"])
def test_a_line_that_is_no_object_is_an_error_without_a_case(raw: bytes) -> None:
    """It is JSON, and nothing that could hold a request."""
    answer = error_of(raw)
    assert (answer["error"]["code"], answer["error"]["field"], answer["case"]) == ("type", "", None)


@pytest.mark.parametrize("field", ["facts.3.value.age", "facts.1.value.abandoned_share_24h", "request.own_offer"])
def test_a_number_beyond_all_bounds_is_no_value_of_any_field(field: str) -> None:
    """1e400 is JSON by its letters, and Infinity by the time that it is a number."""
    line = good_line()
    put(field, "PLACE")(line)
    answer = error_of(json.dumps(line).replace('"PLACE"', "1e400").encode())
    assert answer["error"]["field"] == field
    assert answer["error"]["code"] in ("type", "format")


def test_a_line_of_twenty_megabytes_is_refused_and_the_next_is_decided() -> None:
    """Whether it is one text or a line without sense; it is not read into memory whole."""
    assert MAX_LINE_BYTES < 20_000_000
    for raw in (b"x" * 20_000_000, json.dumps(good_line() | {"note": "x" * 20_000_000}).encode()):
        answer = error_of(raw)
        assert (answer["error"]["code"], answer["error"]["field"], answer["case"]) == ("too_large", "", None)


def test_a_long_line_without_an_end_is_refused() -> None:
    """At the end of the file, too."""
    ((answer, is_decision),) = answers(b"x" * (MAX_LINE_BYTES + 1))
    assert (is_decision, answer["error"]["code"]) == (False, "too_large")


@pytest.mark.parametrize(
    "case", [None, 0, -1, 1.5, 10**30, True, False, "", "ü\u2028\n", [], [1, [2, {"a": None}]], {}, {"n": {"m": [1]}}], ids=repr
)
def test_a_case_of_any_type_is_copied(case: Any) -> None:
    """On a decision and on an error."""
    good, bad = good_line(case), good_line(case) | {"request": 1}
    for answer, _ in answers(json.dumps(good).encode() + b"\n" + json.dumps(bad).encode()):
        assert answer["case"] == case
        assert type(answer["case"]) is type(case)


def test_a_case_beyond_all_bounds_is_copied_as_it_was_written() -> None:
    """Nothing in a case is ours to read."""
    raw = json.dumps(good_line("PLACE")).replace('"PLACE"', "[1e400, 1.10, 123456789012345678901234567890.5]").encode()
    ((answer, is_decision),) = decide_lines(io.BytesIO(raw), BOOK)
    assert is_decision
    assert answer.startswith(b'{"case":[1e400, 1.10, 123456789012345678901234567890.5],')


def test_a_line_without_a_case_has_none() -> None:
    """It is decided all the same."""
    line = good_line()
    del line["case"]
    ((answer, is_decision),) = answers(json.dumps(line).encode())
    assert (is_decision, answer["case"]) == (True, None)


def test_a_tombstone_removes_the_entry_before_it() -> None:
    """In the order given: what is put again afterwards is on file."""
    line = good_line()
    tombstone = {"topic": "campaigns", "key": "c-1", "value": None}
    line["facts"].append(tombstone)
    ((answer, _),) = answers(json.dumps(line).encode())
    assert (answer["reasons"], answer["missing"]) == (["E_FACTS_INCOMPLETE"], ["campaigns:c-1"])
    line["facts"].append(line["facts"][CAMPAIGN])
    ((answer, _),) = answers(json.dumps(line).encode())
    assert answer["decision"] == "approved"


def test_unknown_fields_are_ignored_wherever_they_stand() -> None:
    """In the line, beside a fact, in a fact, in the request."""
    line = good_line() | {"expect": {"decision": "blocked"}, "title": "x"}
    line["facts"][CONSENT] |= {"partition": 3}
    line["facts"][CONSENT]["value"] |= {"colour": {"red": [1, 2, 3]}}
    line["request"] |= {"colour": 10**30}
    ((answer, is_decision),) = answers(json.dumps(line).encode())
    assert (is_decision, answer["decision"]) == (True, "approved")


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize(
    "field",
    [
        "request.scrubbed_on",
        "facts.3.value.do_not_call_registered_on",
        "facts.4.value.valid_until",
        "facts.6.value.started_on",
        "facts.6.value.ended_on",
        "facts.6.value.collected_on",
    ],
)
@pytest.mark.parametrize("dial_at", ["2020-11-23T13:00:00Z", "2025-11-24T13:00:00Z", "2026-11-23T13:00:00Z"])
def test_the_first_and_the_last_day_that_there_is_are_days(field: str, day: str, dial_at: str) -> None:
    """Programs write them for always and never; under every regime the line is decided."""
    line = good_line()
    put("request.dial_at", dial_at)(line)
    put(field, day)(line)
    ((answer, is_decision),) = answers(json.dumps(line).encode())
    assert is_decision
    assert answer["decision"] in ("approved", "blocked")


def test_a_rule_that_breaks_is_a_refusal_as_on_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """S_STATE_UNAVAILABLE, never a crash and never an approval."""

    def broken(*_arguments: Any, **_options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(door, "decide", broken)
    ((answer, is_decision),) = answers(json.dumps(good_line()).encode())
    assert (is_decision, answer["decision"], answer["reasons"]) == (True, "blocked", ["S_STATE_UNAVAILABLE"])


# --- ringfence decide -----------------------------------------------------------------------------------------------------------


def decide_command(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", "decide", *arguments],
        input=given,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_command_decides_all_lines_and_ends_with_one_if_any_was_bad(tmp_path: Path) -> None:
    """From a file and from standard input alike; the answers stand in the order of the lines."""
    good = json.dumps(good_line("a")).encode()
    raw = good + b"\n{\n\n   \n" + json.dumps(good_line("b")).encode()  # blank lines are no lines, and the last has no end
    file = tmp_path / "lines.jsonl"
    file.write_bytes(raw)
    for done in (decide_command(str(file)), decide_command("-", given=raw)):
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(line["case"], line.get("decision")) for line in lines] == [("a", "approved"), (None, None), ("b", "approved")]
        assert (done.returncode, done.stderr) == (1, b"")
    clean = decide_command("-", given=good + b"\r\n" + good + b"\n")
    assert (clean.returncode, len(clean.stdout.splitlines())) == (0, 2)


def test_the_command_says_that_a_file_is_missing(tmp_path: Path) -> None:
    """Exit code 2: it was used wrongly; so is a folder."""
    missing = decide_command(str(tmp_path / "none"))
    assert (missing.returncode, missing.stdout) == (2, b"")
    assert b"Nosuchfile" in re.sub(rb"[^A-Za-z]", b"", missing.stderr)  # in a box, and broken wherever the path ends
    assert b"Traceback" not in missing.stderr
    assert decide_command(str(tmp_path)).returncode == 2
    assert decide_command().returncode == 2


def test_of_an_empty_file_there_is_nothing_to_decide(tmp_path: Path) -> None:
    """Exit code 0 and no line."""
    file = tmp_path / "empty.jsonl"
    file.write_bytes(b"")
    done = decide_command(str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_command_says_its_version() -> None:
    """``ringfence --version`` needs no subcommand."""
    done = subprocess.run([sys.executable, "-m", "ops.cli", "--version"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.split()[0]) == (0, "ringfence")
