"""The dated rulebook: what is in it, when it binds whom, what a file may not say, and how people read it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from datetime import date, time, timedelta
from pathlib import Path

import pytest

from config.rulebook import RULEBOOKS, load_rulebook, read_rulebook
from ops.rules_cmd import list_parameters, list_rules, show_rule
from rules.codes import BASIS_CODES, REASON_CODES, WARNING_CODES
from rules.errors import RulebookGap, RulebookInvalid
from rules.rulebook import Hours, Parameters, Rulebook

# How many ids each family of law.md section 3 has. R-11 (what the committee asks for its advice) decides about no call; of P
# and K only P-02 and K-03 do.
FAMILIES = {"S": 13, "B": 3, "L": 7, "C": 17, "R": 15, "H": 7, "X": 4, "Q": 7, "O": 13, "N": 6, "T": 9, "P": 1, "K": 1, "D": 3}


@pytest.fixture(scope="module")
def nl() -> Rulebook:
    return load_rulebook()


# --- What is in it ------------------------------------------------------------------------------------------------------------


def test_every_rule_that_decides_about_a_call_is_there(nl):
    """All families, each with all its numbers."""
    ids = {rule.id for rule in nl.rules}
    assert Counter(rule_id[0] for rule_id in ids) == FAMILIES
    assert len(ids) == 106
    gaps = {"R-11"}
    for family, count in FAMILIES.items():
        if family in "PK":
            continue
        last = count + (family == "R")
        assert {f"{family}-{number:02}" for number in range(1, last + 1)} - gaps <= ids
    assert {"P-02", "K-03"} <= ids


def test_every_parameter_has_a_value_on_every_day(nl):
    assert set(nl.parameters) == {field.name for field in fields(Parameters)}
    for day in (date(2009, 10, 1), date(2021, 6, 30), date(2021, 7, 1), date(2026, 11, 23), date(2090, 1, 1)):
        assert nl.on(day, member=False).parameters


def test_every_code_of_a_decision_is_given_by_a_rule(nl):
    """E_FACTS_INCOMPLETE is the procedure's own: it fails closed before any rule is asked. S_ codes are the system's."""
    given = {code for rule in nl.rules for code in rule.gives}
    assert given == {*REASON_CODES, *BASIS_CODES, *WARNING_CODES} - {"E_FACTS_INCOMPLETE"}


def test_every_rule_and_value_says_where_it_was_read(nl):
    entries = [*nl.rules, *(entry for history in nl.parameters.values() for entry in history)]
    assert all(entry.sources for entry in entries)
    assert {source.checked for entry in entries for source in entry.sources} == {date(2026, 11, 22)}


def test_the_values_are_those_of_the_law_reference(nl):
    """Everything of law.md 4.5 and the settled readings of contract.md, spelled out once more, by hand."""
    eea = "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE IS LI NO"
    assert nl.on(date(2026, 11, 23), member=False).parameters == Parameters(
        hours_weekday=Hours(time(9), time(22)),
        hours_saturday=Hours(time(10), time(16)),
        hours_service=Hours(time(8), time(21)),
        early_stop_days=frozenset({(5, 4), (12, 5), (12, 24)}),
        early_stop_closes=time(18, 30),
        remembrance_days=frozenset({(5, 4)}),
        mourning_days=frozenset(),
        holidays_fixed=frozenset({(1, 1), (5, 5), (12, 25), (12, 26)}),
        holidays_easter_offsets=frozenset({-2, 0, 1, 39, 49, 50}),
        kings_day=(4, 27),
        customer_term_max_months=36,
        anniversary_inclusive=True,
        grandfathered_before=date(2021, 7, 1),
        charity_grandfathering=False,
        consent_first_contact_months=6,
        consent_giver_age_min=16,
        cli_reachable_months=6,
        solicited_validity_days=30,
        solicited_agreed_minutes=15,
        scrub_validity_days=28,
        minor_age_max=16,
        periodical_issues_min=3,
        lottery_articles=frozenset({"3", "9", "27b"}),
        eea_countries=frozenset(eea.split()),
        attempts_per_day_max=1,
        unanswered_max=3,
        unanswered_window_days=30,
        soft_refusal_cooldown_days=60,
        dropped_call_cooldown_hours=72,
        abandoned_share_max=0.03,
        code_on_foreign_numbers=False,
        approval_ttl_s=60,
        max_request_age_s=120,
        max_dial_ahead_s=900,
    )


# --- When it binds whom -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "regime"),
    [("2009-10-01", "R1"), ("2021-06-30", "R1"), ("2021-07-01", "R2"), ("2026-06-30", "R2"), ("2026-07-01", "R3")],
)
def test_each_regime_starts_on_its_day(nl, day, regime):
    assert nl.on(date.fromisoformat(day), member=False).regime == regime


def test_a_day_before_the_first_regime_is_a_gap(nl):
    with pytest.raises(RulebookGap):
        nl.on(date(2009, 9, 30), member=False)


FIRST_DAYS = {
    "2009-10-01": "S-01 S-03 S-04 S-07 L-01 L-02 L-03 L-04 L-05 L-06 C-07 R-05 Q-06 O-01 O-02 O-03 O-05 O-09 O-10 O-12 O-13 "
    "T-08 T-09 D-01 D-02 D-03",
    "2011-01-01": "Q-01 Q-02 Q-05",
    "2012-01-01": "Q-07 K-03",
    "2012-07-01": "T-01 T-02 T-03 T-04 T-05 T-07",
    "2016-07-01": "N-02",
    "2018-05-25": "C-02 C-05 C-13 C-16",
    "2020-01-01": "S-05 S-06 O-04 O-07 P-02",
    "2020-03-01": "R-09 N-03 N-04",
    "2020-06-01": "R-08 R-10 H-04",
    "2021-01-01": "O-08",
    "2021-07-01": "S-02 S-08 S-09 S-10 S-11 S-12 S-13 B-01 B-02 L-07 C-01 C-03 C-04 C-08 C-09 C-10 C-15 C-17 R-01 R-02 R-03 R-04 "
    "R-06 R-07 R-12 R-13 R-16 H-01 H-02 H-03 H-05 H-06 Q-03 Q-04 O-06 O-11",
    "2022-06-01": "B-03",
    "2024-10-15": "C-06 C-11 C-12 C-14 N-05 N-06 T-06",
    "2026-07-01": "R-14 R-15 H-07 X-01 X-02 X-03 X-04",
}
BORDERS = [(rule_id, day) for day, ids in FIRST_DAYS.items() for rule_id in ids.split()]


def test_the_first_day_of_every_rule_is_tested(nl):
    """N-01, in force since 2020-03-01 in two shapes, has tests of its own."""
    assert sorted(rule_id for rule_id, _ in BORDERS) == sorted({rule.id for rule in nl.rules} - {"N-01"})


@pytest.mark.parametrize(("rule_id", "day"), BORDERS)
def test_a_rule_binds_everyone_from_its_first_day(nl, rule_id, day):
    first = date.fromisoformat(day)
    assert rule_id in nl.on(first, member=False)
    if day > "2009-10-01":
        assert rule_id not in nl.on(first - timedelta(days=1), member=False)


@pytest.mark.parametrize("rule_id", [rule_id for rule_id, _ in BORDERS if not rule_id.startswith("L-0") or rule_id == "L-07"])
def test_a_rule_of_today_has_no_last_day(nl, rule_id):
    assert rule_id in nl.on(date(2026, 11, 23), member=False)


@pytest.mark.parametrize("rule_id", ["L-01", "L-02", "L-03", "L-04", "L-05", "L-06"])
def test_the_opt_out_rules_end_with_the_first_regime(nl, rule_id):
    assert rule_id in nl.on(date(2021, 6, 30), member=False)
    assert rule_id not in nl.on(date(2021, 7, 1), member=False)


@pytest.mark.parametrize(
    ("rule_id", "members_from"),
    [(rule_id, date(2020, 1, 1)) for rule_id in ("N-01", "N-03", "N-04", "R-09")]
    + [(rule_id, date(2024, 3, 1)) for rule_id in ("C-06", "C-11", "C-12", "C-14", "N-05", "N-06", "T-06")],
)
def test_members_are_bound_earlier_by_the_codes_of_2020_and_2024(nl, rule_id, members_from):
    eve = members_from - timedelta(days=1)
    assert rule_id in nl.on(members_from, member=True)
    assert rule_id not in nl.on(members_from, member=False)
    assert rule_id not in nl.on(eve, member=True)


def test_no_other_rule_knows_members(nl):
    early = {rule.id for rule in nl.rules if rule.first_day_members}
    assert early == {"N-01", "N-03", "N-04", "R-09", "C-06", "C-11", "C-12", "C-14", "N-05", "N-06", "T-06"}


def test_the_customer_term_starts_on_one_day_for_members_too(nl):
    for member in (True, False):
        assert "R-08" not in nl.on(date(2020, 5, 31), member=member)
        assert "R-08" in nl.on(date(2020, 6, 1), member=member)


def test_a_withheld_number_was_a_matter_of_the_code_before_it_became_one_of_law(nl):
    """N-01: consumers only until 2021-06-30, companies too from the next day."""
    assert "N-01" not in nl.on(date(2020, 2, 29), member=False)
    for day, severity, natural_persons_only in (
        (date(2020, 3, 1), "CODE", True),
        (date(2021, 6, 30), "CODE", True),
        (date(2021, 7, 1), "LAW", False),
        (date(2026, 11, 23), "LAW", False),
    ):
        rule = nl.on(day, member=False).rules["N-01"]
        assert (rule.severity, rule.natural_persons_only) == (severity, natural_persons_only)


# --- What a file may not say --------------------------------------------------------------------------------------------------

SOURCE = '[[rule.source]]\nref = "Telecommunicatiewet"\nlevel = "V1"\nchecked = 2026-11-22\n'
REGIMES = "".join(
    f'[[regime]]\nname = "{name}"\nfrom = {day}\n' for name, day in (("R1", "2009-10-01"), ("R2", "2021-07-01"), ("R3", "2026-07-01"))
)
NL_TEXT = (RULEBOOKS / "nl.toml").read_text(encoding="utf-8")
PARAMETERS = NL_TEXT[NL_TEXT.index("\n[[parameter.") :]
ONE_MONTH_TERM = "[[parameter.customer_term_max_months]]\nfrom = 2026-01-01\nvalue = 1\n"


def rule(rule_id: str = "R-14", sources: str = SOURCE, **keys: str) -> str:
    """A [[rule]] as text; ``keys`` replace or add keys, and None leaves one out."""
    usual = {"id": f'"{rule_id}"', "summary": '"No calls"', "severity": '"LAW"', "gives": "[]", "from": "2026-07-01"}
    lines = [f"{key} = {value}\n" for key, value in (usual | keys).items() if value is not None]
    return "[[rule]]\n" + "".join(lines) + sources


class Shelf:
    """Writes rulebooks and overrides into a directory, and reads them as the loader does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def read(self, *rules: str, regimes: str = REGIMES, parameters: str = PARAMETERS, overrides: str | None = None) -> Rulebook:
        book = self.put("xx.toml", regimes + "".join(rules or (rule(),)) + parameters)
        return read_rulebook(book, None if overrides is None else self.put("own.toml", overrides))

    def refuses(self, *rules: str, **parts: str) -> str:
        with pytest.raises(RulebookInvalid) as refusal:
            self.read(*rules, **parts)
        message = str(refusal.value)
        assert re.search(r"(xx|own)\.toml: ", message), message
        assert "; " in message, "a refusal ends with its remedy"
        return message


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path)


def test_a_small_book_is_read(shelf):
    """The frame that the broken books below are made of is good itself."""
    book = shelf.read()
    assert (book.name, [entry.id for entry in book.rules]) == ("xx", ["R-14"])
    assert re.fullmatch(r"xx@[0-9a-f]{16}", book.version)


BROKEN_RULES = {
    "unknown key": (rule(form="2026-07-01"), "R-14 (entry 1): unknown key form; did you mean from?"),
    "missing key": (rule(**{"from": None}), "R-14 (entry 1): key from is missing"),
    "missing id": (rule(id=None), "[[rule]] entry 1: key id is missing"),
    "id of another shape": (rule("R14"), "key id is 'R14'; write an id like \"R-14\""),
    "empty summary": (rule(summary='" "'), "key summary"),
    "unknown severity": (rule(severity='"STATUTE"'), "key severity is 'STATUTE'; write one of LAW, CODE, POLICY"),
    "unknown code": (rule(gives='["E_MINOR", "E_NONE"]'), "write a decision code of rules/codes.py in place of 'E_NONE'"),
    "code given twice": (rule(gives='["E_MINOR", "E_MINOR"]'), "write each entry once"),
    "codes as text": (rule(gives='"E_MINOR"'), "key gives is 'E_MINOR'; write a list"),
    "day in quotes": (rule(**{"from": '"2026-07-01"'}), "key from is '2026-07-01'; write a day like 2026-07-01"),
    "day with a time": (rule(**{"from": "2026-07-01T00:00:00Z"}), "key from"),
    "truth as a number": (rule(natural_persons_only="1"), "key natural_persons_only is 1; write true or false"),
    "no source": (rule(sources=""), "key source is missing"),
    "empty sources": (rule(sources="", source="[]"), "no source; say where it was read"),
    "source as text": (rule(sources="", source='"Telecommunicatiewet"'), "R-14 (entry 1), source: want at least one entry"),
    "source that is no table": (rule(sources="", source='["Telecommunicatiewet"]'), "source: want a table"),
    "unknown level": (rule(sources=SOURCE.replace("V1", "V9")), "source: key level is 'V9'; write one of V1, V2, V3, V4"),
    "unknown key of a source": (rule(sources=SOURCE + "page = 3\n"), "source: unknown key page"),
    "source never checked": (rule(sources=SOURCE.replace("checked = 2026-11-22", "")), "source: key checked is missing"),
    "ends before it starts": (rule(until="2026-06-30"), "until 2026-06-30 is before from 2026-07-01"),
    "starts before any regime": (rule(**{"from": "2009-09-30"}), "starts on 2009-09-30, before the first regime"),
    "members start before any regime": (rule(from_members="2009-09-30"), "starts on 2009-09-30, before the first regime"),
    "members not earlier": (rule(from_members="2026-07-01"), "from_members 2026-07-01 is not before from 2026-07-01"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_a_broken_rule_is_refused(shelf, text, message):
    assert message in shelf.refuses(text)


OLDER = rule(**{"from": "2020-01-01", "until": "2021-06-30"})


def test_periods_of_one_rule_may_follow_each_other(shelf):
    book = shelf.read(OLDER, rule(**{"from": "2021-07-01"}))
    assert [entry.last_day for entry in book.rules] == [date(2021, 6, 30), None]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (rule(**{"from": "2021-06-30"}), "R-14 (entry 2): overlaps the period that starts on 2020-01-01"),
        (rule(**{"from": "2021-07-01", "from_members": "2021-06-30"}), "overlaps the period that starts on 2020-01-01"),
        (rule(**{"from": "2019-01-01", "until": "2019-12-31"}), "list the periods of a rule oldest first"),
        (rule(**{"from": "2020-01-01"}), "list the periods of a rule oldest first"),
    ],
    ids=["one common day", "one common day for members", "the older one last", "the same first day"],
)
def test_periods_that_overlap_or_stand_in_the_wrong_order_are_refused(shelf, later, message):
    assert message in shelf.refuses(OLDER, later)


def test_a_period_without_an_end_allows_no_later_one(shelf):
    assert "overlaps the period that starts on 2020-01-01" in shelf.refuses(rule(**{"from": "2020-01-01"}), rule())


@pytest.mark.parametrize(
    ("regimes", "message"),
    [
        (REGIMES.replace('"R2"', '"R9"'), "key name is 'R9'; write one of R1, R2, R3"),
        (REGIMES[: REGIMES.index('[[regime]]\nname = "R2"')], "R1 leave a gap; list R1, R2, R3"),
        (REGIMES.replace('"R2"', '"R3"'), "R1, R3, R3 leave a gap"),
        (REGIMES.replace("2026-07-01", "2021-07-01"), "R3 does not start after R2"),
        (REGIMES + "until = 2030-01-01\n", "[[regime]]: unknown key until"),
        ("", "key regime is missing"),
        ("regime = []\n", "[[regime]]: want at least one entry"),
        ('title = "law"\n' + REGIMES, "unknown key title"),
    ],
)
def test_regimes_that_leave_a_gap_are_refused(shelf, regimes, message):
    assert message in shelf.refuses(regimes=regimes)


def changed(name: str, old: str, new: str) -> str:
    """The parameters with one piece of one of them replaced."""
    start = PARAMETERS.index(f"[[parameter.{name}]]")
    assert old in PARAMETERS[start:]
    return PARAMETERS[:start] + PARAMETERS[start:].replace(old, new, 1)


WRONG_VALUES = {
    "customer_term_max_months": ("36", "36.0", "true", '"36"', "-1", "86401"),
    "holidays_easter_offsets": ("[-2, 0,", "[-2, -2,", "[true, 0,", '["-2", 0,'),
    "anniversary_inclusive": ("true", "1", '"yes"'),
    "abandoned_share_max": ("0.03", "3", "1.01", "-0.1", "nan", "true", '"0.03"'),
    "grandfathered_before": ("value = 2021-07-01", "value = 2021-07-01T00:00:00", 'value = "2021-07-01"', "value = 2021"),
    "early_stop_closes": ('"18:30"', '"18.30"', '"24:00"', "18:30:00", "1830"),
    "hours_weekday": ('opens = "09:00"', 'opens = "22:00"', 'open = "09:00"', "opens = 9", 'opens = "09:00", lunch = "12:00"'),
    "kings_day": ('"04-27"', '"27-04"', '"4-27"', '"02-30"', "2026-04-27"),
    "remembrance_days": ('["05-04"]', '["05-04", "05-04"]', '"05-04"', "[5]"),
    "mourning_days": ("[]", '["2026-01-01"]', "2026-01-01"),
    "lottery_articles": ('"27b"', "27", '""', '"3"'),
}


@pytest.mark.parametrize(
    ("name", "good", "wrong"), [(name, good, wrong) for name, (good, *all_wrong) in WRONG_VALUES.items() for wrong in all_wrong]
)
def test_a_value_of_another_shape_is_refused(shelf, name, good, wrong):
    """One parameter of each type; the message says what to write instead."""
    message = shelf.refuses(parameters=changed(name, good, wrong))
    assert f"[[parameter.{name}]]: key value is" in message
    assert "; write " in message


def test_every_type_of_parameter_is_among_the_wrong_values():
    types = {field.name: field.type for field in fields(Parameters)}
    assert {types[name] for name in WRONG_VALUES} == set(types.values())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            changed("scrub_validity_days", "scrub_validity_days", "scrub_valid_days"),
            "unknown parameter scrub_valid_days; did you mean",
        ),
        (PARAMETERS.replace("[[parameter.max_dial_ahead_s]]", "[[parameter.max_request_age_s]]"), "list the values oldest first"),
        (PARAMETERS[: PARAMETERS.index("[[parameter.max_dial_ahead_s]]")], "parameter max_dial_ahead_s is missing; add"),
        (changed("minor_age_max", "2009-10-01", "2012-01-01"), "starts on 2012-01-01, the first regime on 2009-10-01"),
        (changed("minor_age_max", "2009-10-01", "2009-09-30"), "starts on 2009-09-30, the first regime on 2009-10-01"),
        (
            changed("minor_age_max", 'severity = "CODE"', 'severity = "HABIT"'),
            "[[parameter.minor_age_max]]: key severity is 'HABIT'",
        ),
        (
            changed("minor_age_max", "source =", "sources ="),
            "[[parameter.minor_age_max]]: unknown key sources; did you mean source?",
        ),
        (changed("minor_age_max", 'level = "V2"', 'level = "high"'), "[[parameter.minor_age_max]], source: key level is 'high'"),
        (changed("minor_age_max", "[[parameter.minor_age_max]]", "[parameter.minor_age_max]"), "in double brackets"),
        ('[[parameter]]\nname = "minor_age_max"\n', "write each value under [[parameter.NAME]]"),
        ("", "key parameter is missing"),
    ],
)
def test_parameters_that_are_not_exactly_right_are_refused(shelf, parameters, message):
    assert message in shelf.refuses(parameters=parameters)


@pytest.mark.parametrize("name", [field.name for field in fields(Parameters)])
def test_no_parameter_may_be_missing(shelf, name):
    heading = f"[[parameter.{name}]]"
    start = PARAMETERS.index(heading)
    end = PARAMETERS.find("[[parameter.", start + 1)
    rest = PARAMETERS[:start] + (PARAMETERS[end:] if end > 0 else "")
    assert f"parameter {name} is missing" in shelf.refuses(parameters=rest)


@pytest.mark.parametrize("text", ["[[rule]\n", 'id = "a"\nid = "b"\n'], ids=["bad brackets", "a key twice"])
def test_what_is_not_toml_is_refused(shelf, text):
    assert "is not TOML" in shelf.refuses(regimes=text)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "xx.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(RulebookInvalid, match="is not TOML"):
        read_rulebook(path)


def test_a_rulebook_that_does_not_exist_is_refused():
    for name in ("ml", "../rulebooks/nl", ""):
        with pytest.raises(RulebookInvalid, match=r"no such rulebook; .*nl"):
            load_rulebook(name)


# --- Overrides and the digest ---------------------------------------------------------------------------------------------------


def test_an_override_replaces_the_values_from_its_day_on(shelf):
    book = shelf.read(overrides=ONE_MONTH_TERM)
    assert book.on(date(2025, 12, 31), member=False).parameters.customer_term_max_months == 36
    assert book.on(date(2026, 1, 1), member=False).parameters.customer_term_max_months == 1
    assert book.parameters["customer_term_max_months"][-1].severity == "POLICY"


def test_an_override_also_replaces_what_the_rulebook_has_later(shelf):
    """An operator's stricter value is not undone by a change of the rulebook that lies after it."""
    later = PARAMETERS + ONE_MONTH_TERM.replace("2026-01-01", "2026-05-01") + 'severity = "CODE"\n'
    later += '[[parameter.customer_term_max_months.source]]\nref = "x"\nlevel = "V1"\nchecked = 2026-11-22\n'
    overrides = ONE_MONTH_TERM.replace("value = 1", "value = 12") + ONE_MONTH_TERM.replace("2026-01-01", "2026-08-01")
    history = shelf.read(parameters=later, overrides=overrides).parameters["customer_term_max_months"]
    assert [(str(entry.first_day), entry.value) for entry in history] == [
        ("2009-10-01", 36),
        ("2026-01-01", 12),
        ("2026-08-01", 1),
    ]


def test_an_override_may_name_its_source(shelf):
    source = 'source = [{ ref = "works council", level = "V4", checked = 2026-01-02 }]\n'
    assert shelf.read(overrides=ONE_MONTH_TERM + source).parameters["customer_term_max_months"][-1].sources[0].ref == "works council"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (ONE_MONTH_TERM.replace("term_max", "term_most"), "unknown parameter customer_term_most_months; did you mean"),
        (ONE_MONTH_TERM.replace("value = 1", 'value = "1"'), "own.toml: [[parameter.customer_term_max_months]]: key value"),
        (ONE_MONTH_TERM.replace("from = 2026-01-01\n", ""), "key from is missing"),
        (ONE_MONTH_TERM.replace("2026", "2009"), "starts on 2009-01-01, before the first regime"),
        (ONE_MONTH_TERM + ONE_MONTH_TERM, "list the values oldest first, one a day"),
        (ONE_MONTH_TERM + 'severity = "LAW"\n', "unknown key severity"),
        (ONE_MONTH_TERM + "source = []\n", "no source"),
        (rule(), "own.toml: unknown key rule"),
        ("", "key parameter is missing"),
        ("value = ", "own.toml: is not TOML"),
    ],
)
def test_overrides_that_are_not_exactly_right_are_refused(shelf, overrides, message):
    assert message in shelf.refuses(overrides=overrides)


def test_an_overrides_file_that_cannot_be_read_is_refused(tmp_path):
    """Silently going on without it would judge by other values than the operator asked for."""
    with pytest.raises(RulebookInvalid, match=r"none\.toml: cannot be read"):
        load_rulebook("nl", tmp_path / "none.toml")


def test_the_digest_changes_with_an_override(shelf, nl):
    own = load_rulebook("nl", shelf.put("own.toml", ONE_MONTH_TERM))
    assert own.digest != nl.digest
    assert own.version.startswith("nl@")


def test_the_digest_changes_with_any_content(shelf):
    digests = {
        shelf.read(text).digest
        for text in (rule(), rule(until="2030-01-01"), rule(summary='"Some calls"'), rule(gives='["E_MINOR"]'), rule("R-15"))
    }
    assert len(digests) == 5


def test_the_digest_does_not_change_with_comments_layout_or_the_order_of_tables(shelf):
    first, second = rule("R-14"), rule("S-01")
    cut = PARAMETERS.index("[[parameter.kings_day]]")
    turned = PARAMETERS[cut:] + "\n" + PARAMETERS[:cut]
    usual = shelf.read(first, second)
    assert shelf.read("# a remark\n\n", second, first, parameters=turned).digest == usual.digest
    # Nor does it depend on what the file is called.
    moved = read_rulebook(shelf.put("yy.toml", REGIMES + first + second + PARAMETERS))
    assert (moved.name, moved.digest) == ("yy", usual.digest)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_digest_is_the_same_in_every_process(nl, seed):
    """Sets of texts have another order under every hash seed; two workers must still name the same rulebook."""
    script = "from config.rulebook import load_rulebook; print(load_rulebook().digest)"
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=RULEBOOKS.parents[1],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == nl.digest
    assert re.fullmatch(r"[0-9a-f]{16}", nl.digest)


# --- How people read it ---------------------------------------------------------------------------------------------------------


def test_a_piped_listing_has_one_uncut_line_for_each_period(nl, capsys):
    list_rules(nl, json_output=False)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["id", "severity", "from", "until", "gives", "summary"]
    assert [line.split()[0] for line in lines] == [rule.id for rule in nl.rules]
    for line, entry in zip(lines, nl.rules, strict=True):
        assert entry.summary in line
        assert " ".join(entry.gives) in line
        assert line == line.rstrip()
        assert "…" not in line
        assert "\x1b" not in line


@pytest.fixture
def terminal(monkeypatch):
    """Rich believes it writes to a terminal of 80 columns without colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")


def unstyled(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.usefixtures("terminal")
def test_an_80_column_terminal_gets_folded_tables_that_lose_nothing(nl, capsys):
    list_rules(nl, json_output=False)
    list_parameters(nl, json_output=False)
    for entry in nl.rules:
        show_rule(nl, entry.id, json_output=False)
    out = unstyled(capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    words = set(out.split())
    assert {code for entry in nl.rules for code in entry.gives} <= words
    assert {word for entry in nl.rules for word in entry.summary.split()} <= words


def test_one_rule_shows_its_history_members_and_sources(nl, capsys):
    assert show_rule(nl, "n-01", json_output=False)
    out = capsys.readouterr().out
    for piece in (
        "N-01  nl@",
        "from 2020-03-01, until 2021-06-30  CODE",
        "members  from 2020-01-01",
        "natural persons only",
        "from 2021-07-01, in force  LAW",
        "V1  Telecommunicatiewet art. 11.7(8)",
    ):
        assert piece in out


def test_an_unknown_id_names_near_ones_and_prints_nothing(nl, capsys):
    for json_output in (True, False):
        assert not show_rule(nl, "R14", json_output=json_output)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "no rule R14" in printed.err
        assert "did you mean R-14" in printed.err


def test_the_parameters_are_listed_with_their_history(shelf, capsys):
    list_parameters(shelf.read(overrides=ONE_MONTH_TERM), json_output=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    term = [line[1:4] for line in lines if line[0] == "customer_term_max_months"]
    assert term == [["CODE", "2009-10-01", "36"], ["POLICY", "2026-01-01", "1"]]
    assert {line[0] for line in lines[1:]} == {field.name for field in fields(Parameters)}


def test_programs_get_the_same_as_json(nl, capsys):
    list_rules(nl, json_output=True)
    listed = json.loads(capsys.readouterr().out)
    assert listed["rulebook"] == nl.version
    assert [entry["id"] for entry in listed["rules"]] == [entry.id for entry in nl.rules]
    assert listed["regimes"][-1] == {"name": "R3", "from": "2026-07-01"}

    assert show_rule(nl, "R-14", json_output=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["periods"] == [entry for entry in listed["rules"] if entry["id"] == "R-14"]
    assert shown["periods"][0]["sources"][0]["level"] == "V1"

    list_parameters(nl, json_output=True)
    values = {name: history[0]["value"] for name, history in json.loads(capsys.readouterr().out)["parameters"].items()}
    assert values["hours_weekday"] == {"opens": "09:00", "closes": "22:00"}
    assert values["early_stop_closes"] == "18:30"
    assert values["kings_day"] == "04-27"
    assert values["lottery_articles"] == ["3", "9", "27b"]
    assert values["grandfathered_before"] == "2021-07-01"
