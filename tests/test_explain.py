"""``ringfence explain``: every code in both languages, every worked case put into words, and the command on a real broker."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from string import Formatter
from types import SimpleNamespace
from typing import Any, get_args

import click
import msgspec
import pytest
import typer.main
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from pydantic import BaseModel

from config.rulebook import load_rulebook
from ops.audit.records import APPROVED, BLOCKED, LogRecord
from ops.cli import app
from ops.explain import behind
from ops.explain.catalogue import LANGUAGES, TEXTS, CodeText, catalogue
from ops.explain.explanation import Explanation, explain
from ops.explain.known import Known, _asked
from ops.explain.places import Place, parse_place
from ops.explain.run import explained
from ops.explain.search import Output, Search
from ops.explain.terminal import print_explanation
from ops.explain.waiting import PASSING
from ops.explain.wording import LABELS, worded
from rules.codes import ALL_CODES, REASON_CODES
from rules.decide import decide
from rules.decision import Decision
from rules.e164 import masked
from rules.errors import StateError
from rules.events import FACT_MODELS, REFERENCE_KEYS, REFERENCE_MODELS, REQUEST_TOPIC, read_event
from rules.facts import NumberFacts
from rules.instants import parse_instant
from rules.recall import recall, stop_of
from rules.reference import Reference
from streams.log_reader import LogReader
from tests.cases import worked_cases
from tests.harness import Client, Running, encode, guard_settings, ringfence
from tests.scene import (
    NOW,
    REFERENCE,
    ask,
    callee,
    caller_number,
    campaign,
    consent,
    home,
    number,
    numbers,
    objection,
    outcome,
    party,
    request,
    running_scene,
)

PAGE = (Path(__file__).parent.parent / "docs" / "explaining.md").read_text(encoding="utf-8")
BOOK = load_rulebook()
FILES = {lang: tomllib.loads((TEXTS / f"{lang}.toml").read_text(encoding="utf-8")) for lang in LANGUAGES}


def words(lang: str) -> Iterator[str]:
    """Every text of a language that is said of codes, and the phrases and notes."""
    yield from (entry[field] for entry in FILES[lang]["codes"].values() for field in CodeText._fields)
    yield from (text for table in ("phrases", "notes") for text in FILES[lang][table].values())


# --- The catalogue ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_code_has_a_name_a_meaning_and_a_remedy(lang: str):
    """And no text is about a code that a decision cannot carry."""
    codes = FILES[lang]["codes"]
    assert set(codes) == set(ALL_CODES)
    assert {
        code for code, entry in codes.items() if set(entry) != set(CodeText._fields) or not all(map(str.strip, entry.values()))
    } == set()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_texts_name_no_code_that_does_not_exist(lang: str):
    """Codes and commands in running text are real ones; rule ids are those of the rulebook."""
    said = " ".join(words(lang))
    assert set(re.findall(r"\b(?:OK|[SEPW])_[A-Z0-9_]+\b", said)) <= set(ALL_CODES)
    titles = FILES[lang]["rules"]
    assert set(re.findall(r"\b[A-Z]-\d\d\b", " ".join([said, *titles, *titles.values()]))) <= {rule.id for rule in BOOK.rules}


def test_both_languages_say_the_same_things():
    """The same tables and keys, and the same figures, dates and parties in each text. English needs no table for words that it is."""
    english, dutch = FILES["en"], FILES["nl"]
    for table in ("phrases", "notes", "regimes", "severities", "levels", "topics"):
        assert set(english[table]) == set(dutch[table]), table
    assert set(english["fields"]) <= set(dutch["fields"])
    assert set(english["values"]) <= set(dutch["values"])

    def filled_in(entry: dict[str, str]) -> set[str]:
        return {name for text in entry.values() for _, name, _, _ in Formatter().parse(text) if name}

    differing = {code for code in ALL_CODES if filled_in(english["codes"][code]) != filled_in(dutch["codes"][code])}
    assert differing - {"E_SOLICITED_UNCLEAR"} == set()  # Dutch need not repeat the subject


def test_every_rule_that_can_give_a_code_has_a_dutch_title():
    """Also each period of a rule that says something else than the newest."""
    titles = FILES["nl"]["rules"]
    newest = {rule.id: rule for rule in BOOK.rules}
    giving = {rule.id for rule in BOOK.rules if rule.gives}
    assert giving - set(titles) == set()
    older = {f"{rule.id} {rule.first_day}" for rule in BOOK.rules if rule.gives and rule.summary != newest[rule.id].summary}
    assert {key for key in titles if " " in key} == older


@pytest.mark.parametrize("lang", ["nl"])
def test_every_field_and_every_word_of_the_contract_has_a_term(lang: str):
    """English falls back on the contract's own words; Dutch must not."""
    fields, values = set[str](), set[str]()

    def look(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            fields.add(name)
            note(field.annotation)

    def note(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            look(annotation)
        for inner in get_args(annotation):
            if isinstance(inner, str):
                values.add(inner)
            else:
                note(inner)

    for model in FACT_MODELS.values():
        look(model)
    paths = {path.partition(".")[::2] for looked in behind._FIELDS.values() for path in looked}
    for model, source in ((REFERENCE_MODELS["parties"], "responsible"), (REFERENCE_MODELS["caller-numbers"], "caller_number")):
        for name in {field for of, field in paths if of == source}:
            fields.add(name)
            note(model.model_fields[name].annotation)
    fields |= {field for _, field in paths} - {"number"}
    for union in ("Purpose", "Promotion", "DiallingMode"):
        values.update(get_args(getattr(sys.modules["rules.requests"], union)))
    assert fields - set(FILES[lang]["fields"]) - {"event_id", "number", "sha256"} == set()
    assert values - set(FILES[lang]["values"]) == set()
    assert set(FILES[lang]["topics"]) >= {*FACT_MODELS, *REFERENCE_MODELS}


def test_what_codes_lean_on_is_there():
    """Codes, topics and fields of the tables in behind.py exist, and so do the codes that pass with time."""
    assert set(behind._FIELDS) <= set(ALL_CODES)
    assert set(PASSING) <= set(REASON_CODES)
    assert all(any(code.startswith(start) for code in ALL_CODES) for start in behind._TOPICS)
    assert {topic for topics in behind._TOPICS.values() for topic in topics} <= set(FACT_MODELS)


def test_a_language_without_texts_is_refused():
    with pytest.raises(ValueError, match="en, nl"):
        catalogue("de")


# --- Places ----------------------------------------------------------------------------------------------------------------


def test_a_place_is_read_as_it_is_written():
    for text in ("approved-0@0", "blocked-12@345678"):
        assert str(parse_place(text)) == text
    assert parse_place("blocked-3@12") == Place(BLOCKED, 3, 12)


@pytest.mark.parametrize("text", ["", "blocked-3", "blocked@3", "rejected-1@2", "blocked-3@-1", "blocked-3@1 ", "3@17"])
def test_what_is_no_place_is_refused(text: str):
    with pytest.raises(ValueError, match="blocked-3@1234"):
        parse_place(text)


# --- The pure part ---------------------------------------------------------------------------------------------------------


class Told:
    """Decides one request by some facts, and explains it from the logs that this would have left behind in one partition."""

    def __init__(self, facts: list[dict[str, Any]], asked: dict[str, Any], now: str | None = None) -> None:
        self.logs: dict[str, list[LogRecord]] = {topic: [] for topic in (REQUEST_TOPIC, *FACT_MODELS, *REFERENCE_MODELS)}
        self.now_ms = parse_instant(NOW) // 1000
        self.asked = asked
        for fact in facts:
            self.put(fact["topic"], fact["value"], fact.get("key"))
        self.put(REQUEST_TOPIC, asked)
        self.decision = self._decided(parse_instant(now or asked["dial_at"]))
        self.outputs = [self._output(self.decision)]

    def put(self, topic: str, value: dict[str, Any] | None, key: str | None = None) -> LogRecord:
        key = key or (value or {})[REFERENCE_KEYS.get(topic, "number")]
        record = LogRecord(len(self.logs[topic]), self.now_ms, key.encode(), None if value is None else encode(value))
        self.logs[topic].append(record)
        return record

    def recalled(self, topic: str, value: dict[str, Any]) -> Decision:
        """Take the approval back for a fact."""
        stop = self.put(topic, value)
        cause = stop_of(read_event(topic, stop.key, stop.value)[0], topic, stop.offset, stop.log_time_ms)
        assert cause is not None
        self.now_ms += 10
        taken_back = recall(self.decision, [cause], BOOK.version, parse_instant(self.decision.decided_at) + 10, self._ends())
        self.outputs.append(self._output(taken_back, BLOCKED))
        return taken_back

    def explained(self, book=BOOK, without: tuple[str, ...] = (), begins: dict[str, int] | None = None) -> Explanation:
        """Explain it; of topics that are left out, the log no longer has a record."""
        bounds = {topic: ((begins or {}).get(topic, 0), len(log)) for topic, log in self.logs.items()}
        known = Known(0, 1, book, bounds)
        for topic, record in self.outputs:
            known.add(topic, record)
        for topic, log in self.logs.items():
            for record in log if topic not in without else ():
                known.add(topic, record)
        case = known.case_of(self.decision.number)
        assert case is not None
        explanation = explain(self.decision.request_id, case, known, book)
        assert explanation is not None
        return explanation

    def _ends(self) -> dict[str, int]:
        return {topic: len(self.logs[topic]) for topic in (*FACT_MODELS, *REFERENCE_MODELS)}

    def _decided(self, now: int) -> Decision:
        known, reference = NumberFacts(), Reference()
        for topic in REFERENCE_MODELS:
            for record in self.logs[topic]:
                if record.value is None:
                    reference.remove(topic, record.key.decode())
                else:
                    reference.put(topic, read_event(topic, record.key, record.value)[0])
        for topic in FACT_MODELS:
            for record in self.logs[topic]:
                if record.key.decode() == self.asked["number"]:
                    known.apply(read_event(topic, record.key, record.value)[0], record.log_time_ms)
        asked, _ = read_event(REQUEST_TOPIC, self.asked["number"].encode(), encode(self.asked))
        return decide(asked, known, reference, BOOK, now, self._ends())

    def _output(self, decision: Decision, topic: str | None = None) -> tuple[str, LogRecord]:
        topic = topic or (APPROVED if decision.approved else BLOCKED)
        return topic, LogRecord(0, self.now_ms, decision.number.encode(), encode(decision), [("input-offset", b"0")])


def of_scene(of: str, *facts: tuple[str, dict[str, Any]], now: str | None = None, **fields: Any) -> Told:
    """A request of the scene's caller for a number, with facts about it and reference entries over those of the scene."""
    return Told([{"topic": topic, "value": value} for topic, value in (*REFERENCE, *facts)], request(of, **fields), now)


def points(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {point["code"]: point for point in told["decided"]["points"]}


@pytest.mark.parametrize("line", worked_cases(), ids=lambda line: str(line["case"]))
def test_every_worked_case_is_explained_in_both_languages(line: dict[str, Any]):
    """Each code once, with the rules and facts of the record behind them; every text filled in, and nothing personal in it."""
    case = Told(line["facts"], line["request"])
    explanation = case.explained()
    record = case.decision
    assert explanation.confirmed
    assert explanation.difference is None
    for lang in LANGUAGES:
        told = worded(explanation, lang)
        said = told["decided"]["points"]
        expected = [*record.reasons, *([record.basis] if record.basis else []), *record.warnings]
        assert [point["code"] for point in said] == expected
        carrying = [point for point in said if point["kind"] != "warning"]
        assert {rule["id"] for point in carrying for rule in point["rules"]} == set(record.rules)
        assert {fact["event_id"] for point in carrying for fact in point["facts"]} >= set(record.evidence)
        assert told["decided"]["notes"] == []
        assert set(told["labels"]) == set(LABELS)
        text = json.dumps(told, ensure_ascii=False)
        assert "…" not in text
        assert record.number not in text
        refs = {line["request"].get("person_ref")} | {fact["value"].get("person_ref") for fact in line["facts"] if fact["value"]}
        assert [ref for ref in refs if ref and f'"{ref}"' in text] == []
        print_explanation(told)


def test_each_code_has_the_facts_and_rules_of_its_own():
    """Two consents fail differently, and each code names the one that it is about."""
    of = number(1)
    bundled, unproven = consent(of, capture="bundled_clause"), consent(of, evidence=None)
    said = points(worded(of_scene(of, bundled, unproven).explained()))
    assert [fact["event_id"] for fact in said["E_CONSENT_BUNDLED"]["facts"]] == [bundled[1]["event_id"]]
    assert [fact["event_id"] for fact in said["E_CONSENT_UNPROVEN"]["facts"]] == [unproven[1]["event_id"]]
    assert [rule["id"] for rule in said["E_CONSENT_UNPROVEN"]["rules"]] == ["B-02"]


def test_of_a_fact_that_was_sent_again_the_first_is_told():
    """As the guard has it: of one event_id the first that arrives counts."""
    of = number(18)
    stops = [objection(of, event_id="o-1", at=at) for at in ("2026-03-03T09:05:00Z", "2026-04-04T09:05:00Z")]
    (fact,) = points(worded(of_scene(of, *stops).explained()))["E_OBJECTION"]["facts"]
    assert (fact["place"], fact["at"]) == ("objections-0@0", "2026-03-03T09:05:00Z")


def test_a_fact_is_told_with_its_dates_its_parties_and_its_proof():
    """What an officer looks up first; sources of the rule with their level beside it."""
    of = number(2)
    told = worded(of_scene(of, consent(of, person_ref="p-9"), callee(of)).explained())
    (fact,) = points(told)["E_CONSENT_UNPROVEN"]["facts"]
    details = {detail["field"]: detail["value"] for detail in fact["details"]}
    assert (fact["topic"], fact["at"], fact["on"]) == ("consents", "2026-11-20T10:00:00Z", "20 November 2026, 11:00")
    assert fact["place"] == "consents-0@0"
    assert (details["party_ids"], details["subjects"], details["evidence"]) == ("A", "energy", "https://example.org/1")
    assert details["person_ref"].startswith("person ")
    source = points(told)["E_CONSENT_UNPROVEN"]["rules"][0]["sources"][0]
    assert source["ref"] == next(rule for rule in BOOK.rules if rule.id == "B-03").sources[0].ref
    assert source["level"] == "V2"


def test_persons_are_letters_so_that_one_sees_that_they_differ():
    """The giver and the person meant are two; unmasked they stand there as they are."""
    told = of_scene(number(3), consent(number(3), person_ref="p-9"), callee(number(3)))
    masked_told, full = worded(told.explained()), worded(told.explained(), unmasked=True)

    def persons(said: dict[str, Any]) -> set[str]:
        point = points(said)["E_CONSENT_UNPROVEN"]
        given = {detail["value"] for fact in point["facts"] for detail in fact["details"] if detail["field"] == "person_ref"}
        return given | {looked["value"] for looked in point["looked_at"]}

    assert persons(masked_told) == {"person A", "person B"}
    assert persons(full) == {"p-9", "p-1"}
    assert (masked_told["number"], full["number"]) == (masked(number(3)), number(3))


def test_a_number_within_an_id_or_an_address_is_masked():
    """However it is written there."""
    of = number(4)
    national = "0" + of.removeprefix("+31")
    facts = [consent(of, event_id=f"c-{of}", evidence={"uri": f"https://crm.example/{national}", "sha256": "00"})]
    asked = {"request_id": f"q-{national}-1"}
    assert of[3:] not in json.dumps(worded(of_scene(of, *facts, **asked).explained()))
    assert of[3:] in json.dumps(worded(of_scene(of, *facts, **asked).explained(), unmasked=True))


def test_what_would_have_to_change_names_party_and_date():
    """In English and in Dutch: only a later consent that names the caller."""
    of = number(5)
    case = of_scene(of, party(name="Zonnig BV"), consent(of, at="2026-01-01T10:00:00Z"), objection(of, at="2026-03-03T09:05:00Z"))
    explanation = case.explained()
    english, dutch = (points(worded(explanation, lang))["E_OBJECTION"]["remedy"] for lang in LANGUAGES)
    assert "Zonnig BV (A)" in english
    assert "later than the objection of 3 March 2026, 10:05" in english
    assert "Zonnig BV (A)" in dutch
    assert "later is gegeven dan het bezwaar van 3 maart 2026, 10:05" in dutch


def test_what_passes_with_time_says_when():
    """Saturday evening: Sunday is no way out, Monday at nine is. A rest of 72 hours ends on a day with its hours."""
    of = number(6)
    late = of_scene(of, consent(of), callee(of), dial_at="2026-11-21T17:00:00Z")
    point = points(worded(late.explained()))["E_TIME_WINDOW"]
    assert point["clears_at"] == "2026-11-23T08:00:00Z"
    assert point["remedy"].endswith("gone from 23 November 2026, 09:00.")
    dropped = of_scene(of, consent(of), callee(of), outcome(of, "silent", at="2026-11-23T12:00:00Z"))
    said = points(worded(dropped.explained()))
    assert said["P_ATTEMPT_CAP"]["clears_at"] == "2026-11-24T08:00:00Z"
    assert said["P_COOLDOWN"]["clears_at"] == "2026-11-27T08:00:00Z"


def test_a_suspension_is_told_with_the_record_that_could_not_be_read():
    """It has no event_id; its place says where it is."""
    of = number(8)
    case = of_scene(of, consent(of), callee(of))
    # The second one came after the decision.
    case.logs["objections"] += [LogRecord(offset, case.now_ms + offset, of.encode(), b"{") for offset in (0, 1)]
    state = msgspec.structs.replace(
        case.decision, decision="blocked", basis=None, valid_until=None, reasons=["S_QUARANTINED"], rules=[]
    )
    case.decision = msgspec.structs.replace(state, evidence=[], as_of={**state.as_of, "objections": 1})
    case.outputs = [case._output(case.decision)]
    explanation = case.explained()
    assert explanation.confirmed
    (fact,) = points(worded(explanation))["S_QUARANTINED"]["facts"]
    assert (fact["topic"], fact["event_id"], fact["place"]) == ("objections", None, "objections-0@0")


def test_a_record_that_the_facts_do_not_give_is_a_finding():
    """It is told, not smoothed over; its own codes are explained all the same."""
    case = of_scene(number(9), consent(number(9)), callee(number(9)))
    assert case.decision.approved
    case.decision = msgspec.structs.replace(
        case.decision, decision="blocked", basis=None, valid_until=None, reasons=["E_NO_BASIS"], rules=["B-01"], evidence=[]
    )
    case.outputs = [case._output(case.decision)]
    explanation = case.explained()
    assert not explanation.confirmed
    told = worded(explanation)
    assert told["check"]["result"] == "differs"
    assert "decision blocked, not approved" in told["check"]["difference"]
    assert [rule["id"] for rule in points(told)["E_NO_BASIS"]["rules"]] == ["B-01"]


def test_another_rulebook_is_told(tmp_path: Path):
    """The decision is not taken again by law that it was not taken by."""
    own = tmp_path / "own.toml"
    own.write_text("[[parameter.approval_ttl_s]]\nfrom = 2026-01-01\nvalue = 30\n")
    told = worded(of_scene(number(10), consent(number(10))).explained(load_rulebook(overrides=own)))
    assert told["check"]["result"] == "not_taken_again"
    (note,) = told["decided"]["notes"]
    assert note["code"] == "other_rulebook"
    assert BOOK.version in note["text"]
    assert [fact["topic"] for fact in points(told)["OK_CONSENT"]["facts"]] == ["consents"]


def test_facts_and_requests_that_are_gone_are_told():
    """What is left is explained from the record."""
    of = number(11)
    case = of_scene(of, objection(of))
    without_request = worded(case.explained(without=(REQUEST_TOPIC,)))
    assert [note["code"] for note in without_request["decided"]["notes"]] == ["request_gone"]
    assert points(without_request)["E_OBJECTION"]["facts"]
    without_facts = worded(case.explained(without=("objections",), begins={"objections": 1}), "nl")
    assert [note["code"] for note in without_facts["decided"]["notes"]] == ["facts_gone", "evidence_gone"]
    assert without_facts["check"] == {**without_facts["check"], "result": "not_taken_again", "difference": None}
    point = points(without_facts)["E_OBJECTION"]
    assert ([rule["id"] for rule in point["rules"]], point["facts"]) == (["O-01"], [])
    assert "later is gegeven dan het bezwaar." in point["remedy"]


def test_an_answer_without_a_look_at_the_facts_is_told_as_that():
    case = of_scene(number(12), consent(number(12)))
    case.decision = msgspec.structs.replace(
        case.decision, decision="blocked", basis=None, valid_until=None, reasons=["S_STATE_STALE"], rules=[], evidence=[]
    )
    case.outputs = [case._output(case.decision)]
    told = worded(case.explained())
    assert [note["code"] for note in told["decided"]["notes"]] == ["refused_unseen"]
    assert told["check"]["result"] == "not_taken_again"


def test_a_day_before_every_regime_is_explained():
    """No law covers it, so there is no regime, no rule and no figure to tell."""
    told = worded(of_scene(number(13), consent(number(13)), dial_at="2008-01-01T12:00:00Z").explained())
    assert told["regime"] is None
    assert list(points(told)) == ["S_STATE_UNAVAILABLE"]


def test_a_recall_is_told_beside_its_approval_and_alone():
    """The approval with its basis, the recall with the objection; without the approval the recall is what is left."""
    of = number(14)
    case = of_scene(of, consent(of), callee(of))
    stop = objection(of)
    case.recalled(*stop)
    explanation = case.explained()
    assert (explanation.outcome, explanation.confirmed) == ("recalled", True)
    told = worded(explanation)
    assert list(points(told)) == ["OK_CONSENT"]
    (taken_back,) = told["recalls"]
    assert [point["code"] for point in taken_back["points"]] == ["E_OBJECTION"]
    assert [fact["event_id"] for fact in taken_back["points"][0]["facts"]] == [stop[1]["event_id"]]
    assert taken_back["points"][0]["rules"][0]["id"] == "O-01"
    case.outputs.pop(0)
    alone = worded(case.explained())
    assert (alone["outcome"], [note["code"] for note in alone["decided"]["notes"]]) == ("recalled", ["approval_gone"])
    assert [fact["event_id"] for fact in points(alone)["E_OBJECTION"]["facts"]] == [stop[1]["event_id"]]


def test_the_period_of_a_rule_is_that_of_the_day_of_the_call():
    """N-01 said something else until 30 June 2021, in Dutch too."""
    periods = [rule for rule in BOOK.rules if rule.id == "N-01"]
    assert [catalogue("nl").title(rule) for rule in periods] == [FILES["nl"]["rules"]["N-01 2020-03-01"], FILES["nl"]["rules"]["N-01"]]
    assert periods[0].last_day == date(2021, 6, 30)


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_on_a_narrow_terminal_everything_folds(width: int, lang: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """No line is longer than the terminal, and nothing is cut off."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    told = worded(of_scene(number(15), consent(number(15)), objection(number(15))).explained(), lang)
    print_explanation(told)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(len(line) for line in plain.splitlines()) <= width
    squeezed = "".join(plain.split())
    for text in (told["headline"], points(told)["E_OBJECTION"]["meaning"], points(told)["E_OBJECTION"]["remedy"]):
        assert "".join(text.split()) in squeezed


def test_over_a_pipe_a_paragraph_is_one_line(capsys: pytest.CaptureFixture):
    """For grep; and no control character of a record reaches the reader."""
    case = of_scene(number(16), party(name="A\x1b[1J"), consent(number(16), subjects=["energy\x1b[2J"], evidence=None, capture="terms"))
    told = worded(case.explained())
    print_explanation(told)
    out = capsys.readouterr().out
    assert any(line.strip() == points(told)["E_CONSENT_HIDDEN"]["meaning"] for line in out.splitlines())
    assert "\x1b" not in out
    assert "\\x1b[2J" in out
    print_explanation(worded(of_scene(number(16), party(name="A\x1b[1J")).explained()))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\\x1b[1J") == 3  # beside the role, and in meaning and remedy


# --- The page --------------------------------------------------------------------------------------------------------------


def test_the_output_shown_is_what_is_printed(capsys: pytest.CaptureFixture):
    """docs/explaining.md shows this very case, folded to its own width."""
    shown = PAGE.split("$ ringfence explain q-1\n")[1].split("```")[0]
    of = "+31612345678"
    case = of_scene(
        of,
        party("sunny", name="Sunny Energy BV"),
        campaign(advertiser_id="sunny"),
        caller_number(owner_id="sunny", published_by=["sunny"]),
        consent(of, party_ids=["sunny"], at="2026-09-14T10:20:00Z"),
        callee(of),
        objection(of, event_id="o-81", advertiser_id="sunny", channel="call", at="2026-10-02T15:41:00Z"),
        request_id="q-1",
        advertiser_id="sunny",
        dial_at="2026-11-23T13:01:00Z",
        now=NOW,
    )
    print_explanation(worded(case.explained()))
    assert shown.split() == capsys.readouterr().out.replace("blocked-0@0", "blocked-2@0").split()


def test_the_page_names_every_option_note_and_field():
    """And none that is not there."""
    rows = {row for cells in re.findall(r"^\| (`[^|]+) \|", PAGE, re.MULTILINE) for row in re.findall(r"`([^`]+)`", cells)}
    command = typer.main.get_command(app).get_command(click.Context(click.Command("")), "explain")  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")} - {"--help"}
    told = worded(of_scene(number(17), consent(number(17)), objection(number(17))).explained())
    assert rows == options | set(FILES["en"]["notes"]) | set(told) | set(told["decided"]["points"][0])


# --- The search ------------------------------------------------------------------------------------------------------------


class FewRecords:
    """Stands in for the log: output records by partition with their log times, and a note of every range that was read."""

    def __init__(self, records: dict[TopicPartition, list[tuple[int, bytes]]]) -> None:
        self.records = records
        self.read_of: list[tuple[TopicPartition, int, int]] = []

    async def ends(self, tps: Any) -> dict[TopicPartition, int]:
        return {tp: len(self.records.get(tp, [])) for tp in tps}

    async def since(self, tps: Any, time_ms: int) -> dict[TopicPartition, int]:
        return {tp: sum(at < time_ms for at, _ in self.records.get(tp, [])) for tp in tps}

    async def read(self, ranges: Any, take: Any) -> None:
        for tp, (begin, end) in ranges.items():
            self.read_of += [(tp, begin, end)] if begin < end else []
            await take(
                [
                    SimpleNamespace(topic=tp.topic, partition=tp.partition, offset=offset, timestamp=at, key=b"", value=raw, headers=())
                    for offset, (at, raw) in enumerate(self.records.get(tp, []))
                    if begin <= offset < end
                ]
            )


def test_requests_are_looked_up_where_the_log_still_holds_them():
    """Beyond its ends there is nothing to wait for; of repeats the first request is the one that was decided."""
    decision = of_scene(number(19)).decision
    outputs = [
        Output(Place(BLOCKED, 0, at), LogRecord(at, 0, b"", encode(decision), [("input-offset", offset)]), decision)
        for at, offset in enumerate((b"7", b"5", b"none"))
    ]
    assert _asked(outputs, 0, 8) == [5]
    assert _asked(outputs, 6, 8) == [7]
    assert _asked(outputs, 8, 9) == _asked(outputs, 0, 5) == []


async def test_the_search_goes_back_in_steps_and_no_further_than_it_has_to():
    """Nothing is read twice; what is older than the find is not read; a number is looked for in its partition alone."""
    settings = guard_settings("127.0.0.1:1", "redis://127.0.0.1:1/0", "t.", partitions=2)
    of, now, hour = number(20), 10**12, 3_600_000
    meant = of_scene(of, objection(of)).decision
    other = of_scene(of, objection(of)).decision
    raw, noise = encode(meant), encode(other)
    home_tp = TopicPartition(settings.topic(BLOCKED), home(of, 2))
    away_tp = TopicPartition(settings.topic(BLOCKED), 1 - home(of, 2))
    ages = [(200 * hour, noise), (100 * hour, noise), (30 * hour, raw), (20 * hour, noise), (0, noise)]
    records = {home_tp: [(now - age, value) for age, value in ages], away_tp: [(now - 1, noise)]}

    log, told = FewRecords(records), list[str]()
    search = Search(settings, log, meant.request_id, None, lambda what, _records: told.append(what))
    (found,) = await search.newest(0, now)
    assert found.place == Place(BLOCKED, home_tp.partition, 2)
    assert list(dict.fromkeys(told)) == ["the last hour", "the last day", "the last week"]
    assert [one for one in log.read_of if one[0] == home_tp] == [(home_tp, 4, 5), (home_tp, 3, 4), (home_tp, 1, 3)]

    log = FewRecords(records)
    assert len(await Search(settings, log, meant.request_id, of, lambda *_: None).newest(0, now)) == 1
    assert {tp for tp, _, _ in log.read_of} == {home_tp}
    log = FewRecords(records)
    assert await Search(settings, log, meant.request_id, None, lambda *_: None).newest(now - 25 * hour, now) == []
    assert min(begin for tp, begin, _ in log.read_of if tp == home_tp) == 3
    log = FewRecords(records)
    assert await Search(settings, log, "nobody-asked", None, lambda *_: None).newest(0, now) == []
    assert min(begin for tp, begin, _ in log.read_of if tp == home_tp) == 0


# --- On a real broker ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def guard(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    """One guard for all tests of this file; each uses numbers of its own."""
    async with running_scene(kafka, redis_url) as guard:
        yield guard


def environment(guard: Client) -> dict[str, str]:
    """An officer's environment, by which the command finds the guard."""
    its = guard.settings
    return {"RINGFENCE_KAFKA": its.kafka, "RINGFENCE_TOPIC_PREFIX": its.topic_prefix, "RINGFENCE_PARTITIONS": str(its.partitions)}


def place_of(client: Client, request_id: str, topic: str) -> Place:
    """Where the first record of a request stands in an output topic."""
    name = client.settings.topic(topic)
    return next(
        Place(topic, one.partition, one.offset) for one in client.records if one.topic == name and request_id.encode() in one.value
    )


@pytest.mark.broker
async def test_an_approval_is_found_and_explained(guard: Running):
    """With its basis and the consent behind it, as it stands in the log."""
    (of,) = numbers(1)
    given = consent(of)
    await guard.client.put_all([given, callee(of)])
    decision = await ask(guard.client, of)
    explanation = await explained(guard.client.settings, decision["request_id"])
    assert explanation is not None
    assert (explanation.outcome, explanation.confirmed) == ("approved", True)
    told = worded(explanation)
    assert told["valid_until"]["at"] == decision["valid_until"]
    assert [fact["event_id"] for fact in points(told)["OK_CONSENT"]["facts"]] == [given[1]["event_id"]]
    assert told["decided"]["at"] == str(place_of(guard.client, decision["request_id"], APPROVED))


@pytest.mark.broker
async def test_a_blocked_call_is_explained_by_the_command(guard: Running):
    """In both languages, masked unless it is asked otherwise, as text and as JSON; by request, by number and by place."""
    (of,) = numbers(1)
    stop = objection(of, at="2026-03-03T09:05:00Z")
    await guard.client.put_all([stop])
    request_id = (await ask(guard.client, of))["request_id"]
    settings = environment(guard.client)
    english = await ringfence(settings, "explain", request_id)
    assert (english.code, english.err) == (0, "")
    assert english.out.startswith(f"{request_id}  Blocked on 23 November 2026, 14:00\n")
    assert f"objection {stop[1]['event_id']}, 3 March 2026, 10:05 (advertiser: A)" in english.out
    assert masked(of) in english.out
    assert of not in english.out
    assert of in (await ringfence(settings, "explain", request_id, "--unmasked")).out
    dutch = await ringfence(settings, "explain", request_id, "--lang", "nl", "--number", of)
    assert dutch.code == 0
    assert "het bezwaar van 3 maart 2026, 10:05" in dutch.out
    place = place_of(guard.client, request_id, BLOCKED)
    answered = await ringfence(settings, "explain", request_id, "--json", "--at", str(place))
    told = json.loads(answered.out)
    assert (told["outcome"], told["check"]["result"], told["decided"]["at"]) == ("blocked", "confirmed", str(place))
    assert "E_OBJECTION" in points(told)


@pytest.mark.broker
@pytest.mark.parametrize("where", ["newest first", "at the approval", "at the recall"])
async def test_a_recall_is_found_with_its_approval(guard: Running, where: str):
    """Whichever of the two is looked at first, both are told."""
    (of,) = numbers(1)
    await guard.client.put_all([consent(of), callee(of)])
    decision = await ask(guard.client, of)
    assert decision["decision"] == "approved"
    stop = objection(of)
    await guard.client.put(*stop)
    await guard.client.decisions_of(decision["request_id"], 2)
    topic = {"at the approval": APPROVED, "at the recall": BLOCKED}.get(where)
    at = None if topic is None else place_of(guard.client, decision["request_id"], topic)
    explanation = await explained(guard.client.settings, decision["request_id"], at=at)
    assert explanation is not None
    told = worded(explanation, "nl")
    assert (told["outcome"], told["check"]["result"]) == ("recalled", "confirmed")
    assert told["headline"] == "Ingetrokken op 23 november 2026, 14:00: de goedkeuring geldt niet meer"
    assert list(points(told)) == ["OK_CONSENT"]
    assert [fact["event_id"] for fact in told["recalls"][0]["points"][0]["facts"]] == [stop[1]["event_id"]]


@pytest.mark.broker
async def test_a_broken_objection_is_shown_as_what_suspends(guard: Running):
    """The guard and the explanation agree on which record it is."""
    (of,) = numbers(1)
    broken = await guard.client.put_raw("objections", of.encode(), b"{")
    decision = await ask(guard.client, of)
    explanation = await explained(guard.client.settings, decision["request_id"], number=of)
    assert explanation is not None
    assert explanation.confirmed
    (fact,) = points(worded(explanation))["S_QUARANTINED"]["facts"]
    assert fact["place"] == f"objections-{broken.partition}@{broken.offset}"


@pytest.mark.broker
async def test_what_is_not_there_is_not_found(guard: Running):
    """Another id, another number, another place, a time to come: exit code 1, with nothing on standard output."""
    one, other = numbers(2)
    decision = await ask(guard.client, one)
    settings, request_id = environment(guard.client), decision["request_id"]
    place = place_of(guard.client, request_id, BLOCKED)
    for missing in (
        ("nobody-asked",),
        (request_id, "--number", other),
        (request_id, "--at", str(place._replace(offset=10**6))),
        (request_id, "--at", str(place._replace(topic=APPROVED))),
        (request_id, "--at", str(place._replace(partition=99))),
        (request_id, "--since", "2999-01-01T00:00:00Z"),
    ):
        ended = await ringfence(settings, "explain", *missing)
        assert (ended.code, ended.out) == (1, ""), missing
        assert "no decision of this request" in ended.err
        assert other not in ended.err
    assert (await ringfence(settings, "explain", request_id, "--since", "2020-01-01T00:00:00Z")).code == 0


@pytest.mark.parametrize(
    "wrong", [("--lang", "de"), ("--at", "3@17"), ("--since", "yesterday"), ("--number", "0612345678")], ids=lambda words: words[0]
)
async def test_an_option_that_makes_no_sense_is_refused(wrong: tuple[str, str]):
    """Before anything is asked of a broker."""
    ended = await ringfence({"RINGFENCE_KAFKA": "127.0.0.1:1"}, "explain", "q-1", *wrong)
    assert (ended.code, ended.out) == (2, "")
    assert wrong[0] in ended.err


async def test_without_a_broker_it_says_so():
    """Exit code 3 from the command, StateError for the gateway."""
    ended = await ringfence({"RINGFENCE_KAFKA": "127.0.0.1:1"}, "explain", "q-1")
    assert (ended.code, ended.out) == (3, "")
    assert "127.0.0.1:1" in ended.err
    with pytest.raises(StateError, match="no Kafka answers"):
        await explained(guard_settings("127.0.0.1:1", "redis://127.0.0.1:1/0", "t."), "q-1")


@pytest.mark.broker
async def test_facts_that_the_log_has_dropped_are_told(kafka: str, redis_url: str):
    """Request and objection have gone by retention: what is left is the record."""
    (of,) = numbers(1)
    async with running_scene(kafka, redis_url) as guard:
        await guard.client.put_all([objection(of)])
        decision = await ask(guard.client, of)
        settings = guard.client.settings
        partition = place_of(guard.client, decision["request_id"], BLOCKED).partition
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        for topic in ("objections", REQUEST_TOPIC):
            tp = TopicPartition(settings.topic(topic), partition)
            await admin.delete_records({tp: RecordsToDelete(before_offset=1)})
    finally:
        await admin.close()
    explanation = await explained(settings, decision["request_id"])
    assert explanation is not None
    told = worded(explanation)
    assert [note["code"] for note in told["decided"]["notes"]] == ["request_gone", "evidence_gone"]
    assert told["check"]["result"] == "not_taken_again"
    assert [rule["id"] for rule in points(told)["E_OBJECTION"]["rules"]] == ["O-01"]


@pytest.mark.broker
async def test_a_reader_that_is_at_hand_serves_for_many(guard: Running):
    """The gateway connects once."""
    (of,) = numbers(1)
    decision = await ask(guard.client, of)
    log = LogReader(guard.client.settings, "read_committed")
    await log.start()
    try:
        for _ in range(2):
            explanation = await explained(guard.client.settings, decision["request_id"], log=log, book=BOOK)
            assert explanation is not None
            assert explanation.confirmed
    finally:
        await log.stop()
