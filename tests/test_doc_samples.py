"""Every sample in README and docs/ is run, read, or says why it is not."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doc_samples import PAGES, ROOT, Differs, Reader, Sample, Step, is_as_shown, samples, steps

GETTING_STARTED = ROOT / "docs" / "getting-started.md"
LANGUAGES = {"sh", "python", "json", "toml", "text"}
ALL = [sample for page in PAGES for sample in samples(page)]
RUN = [page for page in PAGES if any(one.language in {"sh", "python"} and one.not_run is None for one in samples(page))]
COMMAND = re.compile(r"^(\$ |(\w+=\S+ )*(ringfence|make|curl|docker|kafka-\S+|pip|python3?) )", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def of(language: str) -> list[Sample]:
    return [sample for sample in ALL if sample.language == language and sample.not_run is None]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Who has followed getting-started.md: the guard that it starts runs on, and is what the other pages talk to."""
    with Reader(tmp_path_factory.mktemp("clone")) as reader:
        reader.environment = reader.follow(GETTING_STARTED)
        yield reader


@pytest.mark.broker
@pytest.mark.slow
def test_getting_started_gets_a_reader_started(reader: Reader):
    """From a fresh clone to decisions; what fails there fails in the fixture."""
    assert "RINGFENCE_KAFKA" in reader.environment


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if page != GETTING_STARTED], ids=named)
def test_what_a_page_says_to_type_does_what_it_says(reader: Reader, page: Path):
    """In the order of the page, from a fresh terminal."""
    reader.follow(page)


def test_every_block_names_its_language():
    """A block in another one has to say why it is neither run nor read."""
    assert [str(sample) for sample in ALL if sample.language not in LANGUAGES and sample.not_run is None] == []


def test_no_command_hides_in_plain_text():
    """What looks like a command stands in a block that is run."""
    assert [str(sample) for sample in of("text") if COMMAND.search(sample.text)] == []


def test_what_is_not_run_says_why():
    """And is listed here (pytest -rP shows it)."""
    skipped = [sample for sample in ALL if sample.not_run is not None]
    for sample in skipped:
        print(f"not run: {sample}: {sample.not_run}")
    assert [str(sample) for sample in skipped if len((sample.not_run or "").split()) < 3] == []


@pytest.mark.parametrize("sample", of("json"), ids=str)
def test_json_can_be_read(sample: Sample):
    """One value, or one a line."""
    try:
        json.loads(sample.text)
    except ValueError:
        for line in sample.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("sample", of("toml"), ids=str)
def test_toml_can_be_read(sample: Sample):
    tomllib.loads(sample.text)


# --- the reader itself ----------------------------------------------------------------------------------------------------------


def test_commands_are_told_from_what_they_print():
    """Continued lines, quotes and here-documents belong to their command."""
    text = "$ one \\\n  --option\nprinted\n\n$ two '{\n}'\n$ cat <<'END' > file\n$ no command\nEND\n$ four | sort\na\nb\n"
    assert steps(text) == [
        Step("one \\\n  --option", "printed\n\n"),
        Step("two '{\n}'", None),
        Step("cat <<'END' > file\n$ no command\nEND", None),
        Step("four | sort", "a\nb\n"),
    ]
    assert steps("export A=1\necho $A\n") == [Step("export A=1\necho $A\n", None)]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("ready 8\n", "ready  8", True),
        ("ready 8\n", "ready 9", False),
        ("ready ...\nend", "ready 9\nand more\nend\n", True),
        ("ready", "ready 9", False),
        ("(a|b)", "a", False),
    ],
)
def test_output_is_compared_as_shown(shown: str, printed: str, same: bool):  # noqa: FBT001  # a column of the table
    assert is_as_shown(shown, printed) is same


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


@pytest.mark.parametrize(
    "text",
    [
        "```sh\n$ echo one\ntwo\n```\n",
        "```sh\nfalse\ntrue\n```\n",
        "<!-- exit code: 3 -->\n```sh\nexit 4\n```\n",
        "```python\nraise SystemExit(1)\n```\n",
        "<!-- keeps running -->\n```sh\n$ echo one\ntwo\n```\n",
        "<!-- file: other.py -->\n```python\nprint(1)\n```\n",
    ],
    ids=["output", "a command of a script", "exit code", "python", "keeps running", "file"],
)
def test_a_sample_that_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr("tests.doc_samples.ROOT", tmp_path)
    (tmp_path / "other.py").write_text("print(2)\n")
    (tmp_path / "clone").mkdir()
    with Reader(tmp_path / "clone") as reader, pytest.raises(Differs):
        reader.follow(page_of(tmp_path, text))


def test_what_is_right_passes_and_exports_hold_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ports are replaced in commands and in what they print alike."""
    monkeypatch.setattr("tests.doc_samples.ROOT", tmp_path)
    (tmp_path / "clone").mkdir()
    text = (
        "<!-- keeps running -->\n```sh\n$ sh -c 'echo up; sleep 600'\nup\n```\n"
        "```sh\nexport PLACE=127.0.0.1:9092\n```\n"
        "```sh\n$ echo $PLACE\n127.0.0.1:9092\n```\n"
        "<!-- exit code: 3 -->\n```sh\nexit 3\n```\n"
        "<!-- not run: it would fail here -->\n```sh\nfalse\n```\n"
    )
    with Reader(tmp_path / "clone") as reader:
        environment = reader.follow(page_of(tmp_path, text))
    assert environment["PLACE"].startswith("127.0.0.1:")
    assert environment["PLACE"] != "127.0.0.1:9092"
