"""What the pages say stands in the code: settings, codes, fields, topics, commands, links, and the figures of the rulebook."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from config.rulebook import load_rulebook
from config.settings import Settings
from ops import metrics
from ops.audit.findings import COUNTS, KINDS
from ops.cli import app
from ops.gateway import metrics as gateway_metrics
from ops.readiness import CODES
from ops.rules_cmd import _value
from rules.codes import ALL_CODES, REASON_CODES, SYSTEM_CODES
from rules.decision import Decision
from rules.events import FACT_MODELS, MODELS, REFERENCE_MODELS, REQUEST_TOPIC, validate
from streams.topics import APPROVED, BLOCKED, REJECTED, STATES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
AUDITING = (DOCS / "auditing.md").read_text(encoding="utf-8")
CONTRACT, OPERATING, RULEBOOK, CHANGELOG = (
    path.read_text(encoding="utf-8")
    for path in (DOCS / "contract.md", DOCS / "operating.md", DOCS / "rulebook.md", ROOT / "CHANGELOG.md")
)

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TABLE_CODE = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \|", re.MULTILINE)

#: Settings that are no field of Settings: one process reads each straight from its environment.
READ_APART = {"RINGFENCE_READY_FILE"}
#: Variables of the tests and of the compose file.
NO_SETTINGS = {"RINGFENCE_TEST_KAFKA", "RINGFENCE_TEST_REDIS", "RINGFENCE_TEST_PICTURE", "RINGFENCE_IMAGE"}


def settings() -> set[str]:
    """Every variable that steers a guard."""
    return {f"RINGFENCE_{name.upper()}" for name in Settings.model_fields} | READ_APART


def named(path: Path) -> str:
    """A page's name in a message."""
    return str(path.relative_to(ROOT))


def fenced(page: str) -> Iterator[str]:
    """The text of every fenced block."""
    return (match.group(2) for match in FENCED.finditer(page))


def without_fences(page: str) -> str:
    """The running text."""
    return FENCED.sub("", page)


def commands(page: str) -> Iterator[list[str]]:
    """Every call of ``ringfence`` in the fenced blocks and between backticks, as words after the name."""
    lines = [line for block in fenced(page) for line in block.splitlines()]
    # In a block that shows output, too, a command stands alone or behind a prompt or variables.
    shown = [match.group(1) for line in lines if (match := re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*ringfence (.*)", line))]
    shown += [
        match.group(1) for text in INLINE.findall(without_fences(page)) if (match := re.fullmatch(r"(?:\w+=\S+ )*ringfence (.*)", text))
    ]
    for rest in shown:
        yield shlex.split(rest.split("#")[0].split("|")[0])


def anchors(page: str) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.*)$", without_fences(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


def test_every_setting_is_explained():
    """docs/operating.md has a line for each variable, and none for one that no longer exists."""
    listed = set(re.findall(r"^\| `(RINGFENCE_\w+)` \|", OPERATING, re.MULTILINE)) - NO_SETTINGS
    assert listed == settings()


def test_every_default_is_the_code_s():
    """The column of defaults repeats what Settings says."""
    shown = dict(re.findall(r"^\| `RINGFENCE_(\w+)` \| `?([^|`]*?)`? \|", OPERATING, re.MULTILINE))
    wrong = {}
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if name == "redis" else field.default
        if default is None or name.upper() not in shown:
            continue
        text = str(default).lower() if isinstance(default, bool) else f"{default:g}" if isinstance(default, float) else str(default)
        if shown[name.upper()] != text:
            wrong[name] = (shown[name.upper()], text)
    assert wrong == {}


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_no_setting_is_made_up(path: Path):
    """A variable that a page names is one that something reads."""
    mentioned = set(re.findall(r"RINGFENCE_[A-Z][A-Z_]*[A-Z]\b(?!\.\.\.)", path.read_text(encoding="utf-8")))
    assert mentioned - settings() - NO_SETTINGS == set()


def test_every_code_is_explained_once():
    """docs/contract.md gives each code a plain meaning, and no code that a decision cannot carry."""
    assert sorted(TABLE_CODE.findall(CONTRACT)) == sorted(ALL_CODES)


def test_reasons_stand_in_the_order_of_a_decision():
    """Readers may take the order of ``reasons`` from the page."""
    blocking = SYSTEM_CODES + REASON_CODES
    assert tuple(code for code in TABLE_CODE.findall(CONTRACT) if code in blocking) == blocking


def test_every_topic_is_explained():
    """Each topic has its line in the table of topics."""
    listed = set(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \| [^|]+ \| [^|]+ \|$", CONTRACT, re.MULTILINE))
    assert listed == {REQUEST_TOPIC, *FACT_MODELS, *REFERENCE_MODELS, APPROVED, BLOCKED, REJECTED, STATES}


@pytest.mark.parametrize("topic", [REQUEST_TOPIC, *FACT_MODELS, *REFERENCE_MODELS])
def test_every_field_of_an_input_is_explained(topic: str):
    """The section of a topic names all of its fields; fields of every fact are told once."""
    if topic in REFERENCE_MODELS:
        section = re.search(rf"^\*\*{topic}\*\*: (.*?)\n\n", CONTRACT, re.MULTILINE | re.DOTALL)
    else:
        section = re.search(rf"^### {topic}\n(.*?)^##", CONTRACT, re.MULTILINE | re.DOTALL)
    assert section is not None
    shared = {"event_id", "number", "at"} if topic in FACT_MODELS else set()
    expected = set(MODELS[topic].model_fields) - shared - {"dial_at_text"}
    assert expected <= set(re.findall(r"`(\w+)`", section.group(1)))


def test_every_field_of_a_decision_is_explained():
    """The table of decisions names all fields of the record."""
    section = CONTRACT.split("## Decisions")[1].split("## Codes")[0]
    assert set(Decision.__struct_fields__) <= set(re.findall(r"`(\w+)`", section))


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_command_shown_exists(path: Path):
    """Subcommands and options in the pages are those of the command line."""
    group = typer.main.get_command(app)
    with click.Context(group) as context:
        for words in commands(path.read_text(encoding="utf-8")):
            known = set(group.list_commands(context))
            name = words[0]
            if name.startswith("-"):
                assert name in {option for parameter in group.params for option in parameter.opts} | {"--help"}
                continue
            assert name in known, f"ringfence {' '.join(words)}"
            command = group.get_command(context, name)
            assert command is not None
            if len(words) > 1 and (subcommands := getattr(command, "commands", None)):
                assert words[1] in subcommands, f"ringfence {' '.join(words)}"
                command = subcommands[words[1]]
            options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            used = {word.split("=")[0] for word in words[1:] if word.startswith("-") and word != "-"}
            assert used <= options, f"ringfence {' '.join(words)}"


def test_every_option_of_up_is_explained():
    """docs/operating.md has a line for each option of ``ringfence up``."""
    command = typer.main.get_command(app).get_command(click.Context(click.Command("")), "up")  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts} - {"--help", "-h"}
    section = OPERATING.split("## Trying it out: ringfence up")[1]
    assert options <= set(re.findall(r"`(--[a-z-]+)`", section))


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_relative_link_resolves(path: Path):
    """A link leads to a file of the project, and an anchor to a heading of that page."""
    broken = []
    for target in LINK.findall(without_fences(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file) if file else path
        inside = other.exists() and other.resolve().is_relative_to(ROOT.resolve())
        if not inside or (anchor and anchor not in anchors(other.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


def test_everything_that_an_audit_tells_is_explained():
    """docs/auditing.md has a line for each option, and the words of the code for each kind and count."""
    command = typer.main.get_command(app).get_command(click.Context(click.Command("")), "audit")  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts} - {"--help", "-h"}
    assert options == set(re.findall(r"^\| `(--[a-z-]+)` \|", AUDITING, re.MULTILINE))
    rows = re.findall(r"^\| `([^`-][^`]*)` \| (.+) \|$", AUDITING, re.MULTILINE)
    assert rows == [*KINDS.items(), *COUNTS.items()]


def test_every_log_line_shown_is_written():
    """What operators are told to raise an alarm on is what the code logs."""
    section = OPERATING.split("## Logs")[1].split("\n## ")[0]
    code = "".join(path.read_text(encoding="utf-8") for room in ("agents", "streams", "ops") for path in (ROOT / room).glob("*.py"))
    rows = re.findall(r"^\| (`[^|]+) \| (?:warning|error) \|", section, re.MULTILINE)
    shown = [event for row in rows for event in re.findall(r"`([^`]+)`", row)]
    assert shown
    assert [event for event in shown if f'"{event}"' not in code] == []


def test_what_failures_are_told_by_exists():
    """Log lines that docs/failures.md names are those of the code, and it names every reason not to be ready and every alert."""
    page = (DOCS / "failures.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for room in ("agents", "streams", "ops") for path in (ROOT / room).glob("*.py"))
    lists = re.findall(r"\blines? ((?:`[^`]+`(?:, | and | or )?)+)", page)
    lines = [event for one in lists for event in re.findall(r"`([^`]+)`", one)]
    assert lines
    assert [event for event in lines if f'"{event}"' not in code] == []
    assert set(CODES) <= set(re.findall(r"`([a-z-]+)`", page))
    alerts = re.findall(r"alert: (\w+)", (ROOT / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))
    assert sorted(re.findall(r"`(Ringfence\w+)`", page)) == sorted(alerts)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_no_metric_is_made_up(path: Path):
    """A figure that a page names is one that something shows."""
    groups = [group for shown in (metrics, gateway_metrics) for group in (shown.COUNTERS, shown.GAUGES, shown.HISTOGRAMS)]
    known = {f"{name}{suffix}" for group in groups for name in group for suffix in ("", "_bucket", "_sum", "_count")}
    assert set(re.findall(r"\bringfence_[a-z_]+[a-z]", path.read_text(encoding="utf-8"))) <= known


def test_every_metric_is_explained_as_it_is_shown():
    """The table repeats name, kind, labels and meaning of the code's."""
    section = OPERATING.split("## Metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(ringfence_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", section, re.MULTILINE)
    families = [
        (kind, name, family)
        for shown in (metrics, gateway_metrics)
        for kind, group in (("counter", shown.COUNTERS), ("gauge", shown.GAUGES), ("histogram", shown.HISTOGRAMS))
        for name, family in group.items()
    ]
    assert rows == [(name, kind, ", ".join(f"`{label}`" for label in family.labels), family.meaning) for kind, name, family in families]
    assert set(re.findall(r"ringfence_[a-z_]+[a-z]", section)) <= {
        f"{name}{suffix}" for _, name, _ in families for suffix in ("", "_bucket")
    }


def test_every_reason_not_to_be_ready_is_explained():
    """The codes of the table, in the order of the code."""
    section = OPERATING.split("## Readiness")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    assert [code for cell in cells for code in re.findall(r"`([a-z-]+)`", cell)] == list(CODES)


def test_every_make_target_shown_exists():
    """What the pages tell to make, the Makefile makes."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = set()
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        shown |= set(re.findall(r"`make ([a-z-]+)", page))
        shown |= {match for block in fenced(page) for match in re.findall(r"^(?:\$ )?make ([a-z-]+)", block, re.MULTILINE)}
    assert shown <= targets


def test_the_releases_shown_are_valid():
    """A record that the pages tell an operator to publish is taken in."""
    releases = [json.loads(block) for block in fenced(OPERATING) if '"released_by"' in block]
    assert releases
    for release in releases:
        validate("quarantine-releases", release)


def test_the_example_of_values_is_the_file_shown_and_changes_the_digest():
    """docs/rulebook.md shows docs/examples/my-values.toml, and both digests as they are."""
    example = DOCS / "examples" / "my-values.toml"
    assert example.read_text(encoding="utf-8") in set(fenced(RULEBOOK))
    shipped, own = load_rulebook().version, load_rulebook(overrides=example).version
    assert shipped != own
    assert {f"| as shipped | `{shipped}` |", f"| with this file | `{own}` |"} <= set(RULEBOOK.splitlines()), (shipped, own)


def test_what_is_uncertain_is_listed():
    """Each rule that leans on a secondary source or an inference, with its best level; each value that rests on inference alone."""
    book = load_rulebook()
    section = RULEBOOK.split("## What is uncertain")[1]
    expected = {}
    for rule in book.rules:
        levels = {source.level for source in rule.sources} | set(expected.get(rule.id, ()))
        expected[rule.id] = levels
    uncertain = {rule_id: min(levels) for rule_id, levels in expected.items() if levels & {"V3", "V4"}}
    assert dict(re.findall(r"^\| ([A-Z]-\d\d) \| (V\d) \|", section, re.MULTILINE)) == uncertain
    inferred = {name for name, history in book.parameters.items() if all(s.level == "V4" for entry in history for s in entry.sources)}
    assert set(re.findall(r"`([a-z_]+)`", section)) == inferred


def test_defaults_of_parameters_are_those_of_the_rulebook():
    """The table of values to set shows what `ringfence rules --parameters` shows."""
    table = RULEBOOK.split("| parameter | default |")[1].split("\n\n")[0]
    history = load_rulebook().parameters
    for names, shown in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", table, re.MULTILINE):
        values = [_value(history[name][-1].value) for name in re.findall(r"`(\w+)`", names)]
        assert shown.replace(" to ", "-") == ", ".join(values), names


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_no_digest_is_out_of_date(path: Path):
    """Where a page shows a rulebook's digest, it is that of today."""
    known = {load_rulebook().version, load_rulebook(overrides=DOCS / "examples" / "my-values.toml").version}
    assert set(re.findall(r"nl@[0-9a-f]{16}", path.read_text(encoding="utf-8"))) <= known, known


def test_every_period_of_a_rule_has_its_line_in_the_changelog():
    """An entry about the law names rule, period and effect."""
    lines = CHANGELOG.split("### Law")[1].splitlines()
    missing = []
    for rule in load_rulebook().rules:
        start = f"- {rule.id}, from {rule.first_day}"
        start += f" (members {rule.first_day_members})" if rule.first_day_members else ""
        start += f" until {rule.last_day}" if rule.last_day else ""
        if not any(line.startswith(f"{start}: ") for line in lines):
            missing.append(start)
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_no_code_and_no_rule_is_made_up(path: Path):
    """Codes that a page names can stand on a decision, and rules stand in the rulebook; ``E_CLI_`` means all that begin so."""
    page = path.read_text(encoding="utf-8")
    rules = {rule.id for rule in load_rulebook().rules}
    assert set(re.findall(r"\b[BCDHKLNOPQRSTX]-\d\d\b", page)) <= rules
    mentioned = set(re.findall(r"\b(?:E|P|S|W|OK)_[A-Z][A-Z0-9_]*", page))
    assert {code for code in mentioned if not code.endswith("_")} <= set(ALL_CODES)
    assert [begin for begin in mentioned if begin.endswith("_") and not any(code.startswith(begin) for code in ALL_CODES)] == []


def test_every_page_is_in_the_index():
    """docs/README.md leads to each page beside it."""
    index = set(LINK.findall((DOCS / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in DOCS.glob("*.md") if page.name != "README.md"} <= index


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_pages_name_nothing_outside_of_the_project(path: Path):
    """No page leans on a folder beside the project or on one machine's paths."""
    page = path.read_text(encoding="utf-8")
    assert re.findall(r"\.\./shared|/home/|/tmp/(?!ready\b)\S*", page) == []
