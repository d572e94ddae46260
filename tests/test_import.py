"""Facts from files: what a row says is published once, in order, and a row that cannot be used is put aside with its reason."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table
from typer.testing import CliRunner

import ops.bulk.run
from config.settings import Settings
from ops.bulk.columns import fields_of, from_text
from ops.bulk.progress import beside
from ops.bulk.rows import Row, Source
from ops.cli import app
from ops.topic_log import opened
from rules.errors import CannotStart, DeliveryFailed, InputError
from rules.events import FACT_MODELS, MODELS, REFERENCE_MODELS, validate
from streams.topics import ensure_topics
from tests.harness import guard_settings, running_guard
from tests.scene import REFERENCE, ask, numbers
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parent.parent
OF = "+31612345678"
CONSENTS = f"""\
event_id,number,at,kind,party_ids,subjects,channels,capture,evidence.uri,evidence.sha256,person_ref,verified_by,giver_age
c-1,{OF},2026-11-01T10:00:00Z,given,A,energy,telephone,unticked_box,https://example.org/1,00,p-1,sms,44
c-2,{OF},2026-11-02T10:00:00Z,given,A|B,energy|telecom,telephone|email,unticked_box,,,,,
"""


SEMICOLONS = f'\ufeffevent_id;number;at;subject\no-1;{OF};2026-11-01T10:00:00Z;"a\nb"\n\no-2;{OF};;\n'


def rows(path: Path, topic: str, **options: Any) -> list[Row]:
    """Every row of a file."""
    given = {"columns": {}, "constants": {}, **options}
    file_format = "parquet" if path.suffix == ".parquet" else "jsonl" if path.suffix == ".jsonl" else "csv"
    with Source(path, topic, file_format, **given).opened() as (_, found):
        return list(found)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


# --- rows -----------------------------------------------------------------------------------------------------------------------


def test_cells_become_fields(tmp_path: Path) -> None:
    """Lists, numbers and fields within others; an empty cell is a field that is not there."""
    first, second = (row.event for row in rows(written(tmp_path, "consents.csv", CONSENTS), "consents"))
    assert first == {
        "event_id": "c-1", "number": OF, "at": "2026-11-01T10:00:00Z", "kind": "given", "party_ids": ["A"], "subjects": ["energy"],
        "channels": ["telephone"], "capture": "unticked_box", "evidence": {"uri": "https://example.org/1", "sha256": "00"},
        "person_ref": "p-1", "verified_by": "sms", "giver_age": 44,
    }  # fmt: skip
    assert second is not None
    assert (second["party_ids"], second["channels"], "evidence" in second) == (["A", "B"], ["telephone", "email"], False)
    for event in (first, second):
        validate("consents", event)


@pytest.mark.parametrize("topic", [*FACT_MODELS, *REFERENCE_MODELS])
def test_every_field_can_be_a_column(topic: str) -> None:
    """Those within another field behind a dot."""
    paths = fields_of(topic)
    assert {path.split(".")[0] for path in paths} == MODELS[topic].model_fields.keys()
    inner = {"consents": "evidence", "objections": "evidence", "callees": "published_for_marketing"}.get(topic)
    assert {path.split(".")[0] for path in paths if "." in path} == ({inner} if inner else set())


@pytest.mark.parametrize(
    ("topic", "field", "text", "value"),
    [
        ("relationships", "paid", "TRUE", True),
        ("relationships", "informed", "false", False),
        ("consents", "giver_age", "44", 44),
        ("campaigns", "abandoned_share_24h", "0.03", 0.03),
        ("parties", "kinds", "lottery_licensee | periodical_publisher", ["lottery_licensee", "periodical_publisher"]),
        ("callees", "published_for_marketing.at", "2026-11-01T10:00:00Z", "2026-11-01T10:00:00Z"),
        ("callees", "age", " 17 ", 17),
        ("consents", "number", "+31612345678", "+31612345678"),
    ],
)
def test_a_cell_is_read_as_its_field_wants(topic: str, field: str, text: str, value: Any) -> None:
    """Instants and numbers stay texts: the model reads them."""
    event = from_text({field: text}, fields_of(topic))
    for name in field.split("."):
        event = event[name]
    assert event == value


@pytest.mark.parametrize(("field", "text"), [("giver_age", "about 40"), ("giver_age", "44.5"), ("first_contact_within_months", "-")])
def test_a_cell_that_cannot_be_read_names_its_field(field: str, text: str) -> None:
    """And what would be right."""
    with pytest.raises(InputError, match="want a whole number") as fault:
        from_text({field: text}, fields_of("consents"))
    assert (fault.value.code, fault.value.field) == ("type", field)


def test_a_spreadsheet_of_another_country_is_read(tmp_path: Path) -> None:
    """Semicolons, a byte order mark, quotes over two lines, blank lines; lines are counted as an editor counts them."""
    path = written(
        tmp_path, "objections.csv", f'\ufeffevent_id;number;at;subject\no-1;{OF};2026-11-01T10:00:00Z;"a\nb"\n\no-2;{OF};;\n'
    )
    found = rows(path, "objections")
    assert [row.line for row in found] == [3, 5]
    assert found[0].event == {"event_id": "o-1", "number": OF, "at": "2026-11-01T10:00:00Z", "subject": "a\nb"}
    assert found[-1].read == path.stat().st_size


def test_columns_under_other_names(tmp_path: Path) -> None:
    """A column may stand for a field, be left out, or be the same in every row; one that nobody knows is refused, for it may matter."""
    path = written(tmp_path, "x.csv", f"id,phone,at,remarks\no-1,{OF},2026-11-01T10:00:00Z,angry\n")
    with pytest.raises(CannotStart, match=r"column 'phone' is no field of objections; column 'remarks'"):
        rows(path, "objections", columns={"event_id": "id"})
    with pytest.raises(CannotStart, match="no column 'telephone'"):
        rows(path, "objections", columns={"event_id": "id", "number": "telephone"}, left_out=frozenset({"remarks", "phone"}))
    (row,) = rows(
        path, "objections", columns={"event_id": "id", "number": "phone"}, constants={"channel": "web"}, left_out=frozenset({"remarks"})
    )
    assert row.event == {"event_id": "o-1", "number": OF, "at": "2026-11-01T10:00:00Z", "channel": "web"}


def test_a_heading_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    """Nobody knows which one counts; and in CSV a field with fields of its own has no column."""
    with pytest.raises(CannotStart, match="column 'at' stands there twice"):
        rows(written(tmp_path, "x.csv", "number,at,at\n"), "objections")
    with pytest.raises(CannotStart, match="column 'evidence' is no field"):
        rows(written(tmp_path, "x.csv", "number,evidence\n"), "objections")


def test_json_lines_are_events(tmp_path: Path) -> None:
    """A line that is none does not stop those behind it."""
    lines = [json.dumps({"phone": OF, "at": "x"}), "", '{"number": 1, "number": 2}', "[]", '{"cut', json.dumps({"number": OF})]
    found = rows(
        written(tmp_path, "o.jsonl", "\n".join(lines)), "objections", columns={"number": "phone"}, constants={"channel": "web"}
    )
    assert [(row.line, row.event) for row in found if row.event] == [
        (1, {"channel": "web", "at": "x", "number": OF}),
        (6, {"channel": "web", "number": OF}),
    ]
    assert [(row.line, row.fault.code) for row in found if row.fault] == [(3, "json"), (4, "type"), (5, "json")]


def test_parquet_holds_lists_times_and_nested_fields(tmp_path: Path) -> None:
    """Times with a zone become instants, dates become texts, nulls are left out."""
    given = {
        "event_id": "c-1", "number": OF, "at": datetime(2026, 11, 1, 10, tzinfo=UTC), "kind": "given", "party_ids": ["A"],
        "subjects": ["energy"], "channels": ["telephone"], "capture": "spoken", "evidence": {"uri": "u", "sha256": None},
        "valid_until": date(2027, 1, 1), "giver_age": None,
    }  # fmt: skip
    path = tmp_path / "consents.parquet"
    write_table(pa.Table.from_pylist([given, given | {"event_id": "c-2"}]), path)
    first, second = rows(path, "consents")
    assert (first.line, second.line, second.read) == (1, 2, 2)
    assert first.event is not None
    assert first.event.pop("evidence") == {"uri": "u"}
    plain = {name: value for name, value in given.items() if name not in ("evidence", "giver_age")}
    assert first.event == plain | {"at": "2026-11-01T10:00:00+00:00", "valid_until": "2027-01-01"}
    validate("consents", first.event)


def test_a_time_without_zone_is_refused(tmp_path: Path) -> None:
    """Nobody knows whose clock it is."""
    path = tmp_path / "objections.parquet"
    write_table(pa.Table.from_pylist([{"event_id": "o-1", "number": OF, "at": datetime(2026, 11, 1, 10)}]), path)  # noqa: DTZ001  # the point
    (row,) = rows(path, "objections")
    with pytest.raises(InputError, match="offset"):
        validate("objections", row.event)


# --- a run ----------------------------------------------------------------------------------------------------------------------


def objections(folder: Path, count: int, name: str = "objections.csv") -> tuple[Path, list[str]]:
    """A file of so many objections of different numbers, without event ids."""
    of = numbers(count)
    return written(folder, name, "number,at,advertiser_id\n" + "".join(f"{one},2026-11-01T10:00:00Z,A\n" for one in of)), of


@pytest.fixture
async def settings(kafka: str, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Topics of this test alone, also for commands."""
    made = guard_settings(kafka, redis_url, redis_prefix)
    await ensure_topics(made)
    for name, value in environment(made).items():
        monkeypatch.setenv(name, value)
    return made


def environment(settings: Settings) -> dict[str, str]:
    return {
        "RINGFENCE_KAFKA": settings.kafka,
        "RINGFENCE_TOPIC_PREFIX": settings.topic_prefix,
        "RINGFENCE_PARTITIONS": str(settings.partitions),
    }


async def ringfence(*arguments: str) -> Any:
    """Run the command in a thread, because it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["import", *arguments])


async def published(settings: Settings, topic: str) -> list[dict[str, Any]]:
    async with opened(settings, topic) as log:
        return [json.loads(record.value or b"") async for record in log.records()]


@pytest.mark.broker
async def test_imported_facts_are_decided_with(kafka: str, redis_url: str, redis_prefix: str, tmp_path: Path, monkeypatch: Any) -> None:
    """A consent approves, an objection behind it blocks; a row that is broken stands in the side file, with its reason."""
    async with running_guard(kafka, redis_url, redis_prefix) as guard:
        for name, value in environment(guard.client.settings).items():
            monkeypatch.setenv(name, value)
        await guard.client.put_all(REFERENCE)
        (of,) = numbers(1)
        consents = written(tmp_path, "consents.csv", CONSENTS.replace(OF, of) + "c-3,0612345678,2026-11-01T10:00:00Z,given,A,energy\n")
        ran = await ringfence(str(consents))
        assert (ran.exit_code, "2 published" in ran.stdout, "may be called until" in ran.stderr) == (1, True, True)
        aside = tmp_path / "consents.csv.bad.jsonl"
        (bad,) = map(json.loads, aside.read_text().splitlines())
        assert (bad["line"], bad["code"], bad["field"], bad["row"]["event_id"]) == (4, "format", "number", "c-3")
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600
        assert not beside(consents).exists()
        assert (await ask(guard.client, of))["basis"] == "OK_CONSENT"
        stop = written(tmp_path, "o.csv", f"phone,at\n{of},2026-11-20T10:00:00Z\n")
        ran = await ringfence(str(stop), "--topic", "objections", "--column", "number=phone", "--set", "advertiser_id=A", "--json")
        assert (ran.exit_code, json.loads(ran.stdout)["good"]) == (0, 1)
        assert (await ask(guard.client, of))["reasons"] == ["E_OBJECTION"]


@pytest.mark.broker
async def test_a_file_that_is_imported_twice_gives_the_same_events(settings: Settings, tmp_path: Path) -> None:
    """Rows without an event_id get one of their content, so the guard knows them again; other rows get another."""
    path, of = objections(tmp_path, 3)
    for _ in range(2):
        assert (await ringfence(str(path))).exit_code == 0
    ids = [one["event_id"] for one in await published(settings, "objections")]
    assert (len(ids), len(set(ids))) == (6, len(of))


@pytest.mark.broker
async def test_an_import_goes_on_where_it_was_cut_off(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker takes no more after the second chunk of four: every row is published once in the end, in its order.

    Guards ``keep`` in ``Import._take`` and the rows that are passed over in ``_from``.
    """
    monkeypatch.setattr(ops.bulk.run, "_CHUNK_ROWS", 3)
    monkeypatch.setattr(ops.bulk.run, "_GIVE_UP_S", 0.0)
    path, of = objections(tmp_path, 11)
    publish, chunks = ops.bulk.run.Publisher.publish, []

    async def two_chunks(self: Any, outputs: Any) -> None:
        chunks.append(outputs)
        if len(chunks) > 2:
            raise DeliveryFailed("the broker is away", outputs)
        await publish(self, outputs)

    with monkeypatch.context() as cut:
        cut.setattr(ops.bulk.run.Publisher, "publish", two_chunks)
        ran = await ringfence(str(path))
    assert ran.exit_code == 3
    assert "6 are published, up to line 7; the same command goes on from there" in ran.stderr
    ran = await ringfence(str(path))
    assert (ran.exit_code, "goes on after line 7" in ran.stderr) == (0, True)
    assert sorted(one["number"] for one in await published(settings, "objections")) == sorted(of)
    assert not beside(path).exists()


@pytest.mark.broker
async def test_a_broker_that_is_slow_is_waited_for(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did not take at first is published again, and nothing else."""
    monkeypatch.setattr(ops.bulk.run, "_PAUSE_S", 0.01)
    path, of = objections(tmp_path, 5)
    publish, attempts = ops.bulk.run.Publisher.publish, []

    async def half_at_first(self: Any, outputs: Any) -> None:
        attempts.append(outputs)
        if len(attempts) == 1:
            await publish(self, outputs[:2])
            raise DeliveryFailed("too slow", outputs[2:])
        await publish(self, outputs)

    monkeypatch.setattr(ops.bulk.run.Publisher, "publish", half_at_first)
    assert (await ringfence(str(path))).exit_code == 0
    assert sorted(one["number"] for one in await published(settings, "objections")) == sorted(of)


@pytest.mark.broker
async def test_ctrl_c_leaves_an_import_that_can_be_gone_on_with(settings: Settings, tmp_path: Path) -> None:
    """It says how far it came."""
    path, of = objections(tmp_path, 150_000)  # three seconds and more, however late this process looks
    command = [sys.executable, "-m", "ops.cli", "import", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment(settings)}, stderr=subprocess.PIPE, text=True)
    await wait_for(beside(path).exists, within_s=30)
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    before = len(await published(settings, "objections"))
    assert 0 < before < len(of)
    assert (await ringfence(str(path))).exit_code == 0
    found = [one["number"] for one in await published(settings, "objections")]
    assert set(found) == set(of)
    assert len(found) - len(of) <= 2 * ops.bulk.run._CHUNK_ROWS


@pytest.mark.broker
async def test_a_file_that_has_changed_is_not_gone_on_with(settings: Settings, tmp_path: Path) -> None:
    """Lines would be skipped that are others by now."""
    path, of = objections(tmp_path, 2)
    beside(path).write_bytes(b'{"topic": "x.objections", "size": 1, "modified_ns": 1, "line": 2}')
    ran = await ringfence(str(path))
    assert isinstance(ran.exception, CannotStart)
    assert "--restart begins anew" in str(ran.exception)
    assert (await ringfence(str(path), "--restart")).exit_code == 0
    assert len(await published(settings, "objections")) == len(of)


@pytest.mark.broker
async def test_a_dry_run_publishes_nothing(settings: Settings, tmp_path: Path) -> None:
    """It checks every row."""
    path = written(tmp_path, "objections.csv", f"number,at\n{OF},2026-11-01T10:00:00Z\n{OF},yesterday\n")
    ran = await ringfence(str(path), "--dry-run")
    assert (ran.exit_code, "1 could be published" in ran.stdout, "1 cannot be used" in ran.stdout) == (1, True, True)
    assert await published(settings, "objections") == []
    assert not beside(path).exists()


@pytest.mark.broker
async def test_a_topic_with_other_partitions_is_refused(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records would go to partitions in which no worker looks for them."""
    path, _ = objections(tmp_path, 1)
    monkeypatch.setenv("RINGFENCE_PARTITIONS", "3")
    ran = await ringfence(str(path))
    assert "has 4 partitions, want 3" in str(ran.exception)


@pytest.mark.broker
async def test_a_side_file_that_cannot_be_written_ends_the_import(settings: Settings, tmp_path: Path) -> None:
    """No row is passed over without a trace of it."""
    path = written(tmp_path, "objections.csv", "number,at\n1,2\n")
    ran = await ringfence(str(path), "--bad", str(tmp_path / "nowhere" / "bad.jsonl"))
    assert isinstance(ran.exception, CannotStart)
    assert "No such file" in str(ran.exception)


async def test_without_a_broker_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And reads nothing."""
    monkeypatch.setenv("RINGFENCE_KAFKA", "127.0.0.1:1")
    path, _ = objections(tmp_path, 1)
    ran = await ringfence(str(path))
    assert "no Kafka answers at 127.0.0.1:1 (RINGFENCE_KAFKA)" in str(ran.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.csv"], "--topic"),
        (["objections.txt"], "--format"),
        (["objections.csv", "--column", "phone"], "--column"),
        (["objections.csv", "--set", "age=4"], "--set"),
        (["consents.csv", "--set", "giver_age=four"], "whole number"),
        (["none.csv"], "does not exist"),
    ],
)
async def test_a_wrong_argument_is_named(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 2."""
    monkeypatch.chdir(tmp_path)
    for name in ("x.csv", "objections.txt", "objections.csv", "consents.csv"):
        written(tmp_path, name, "number\n")
    ran = await ringfence(*arguments)
    assert ran.exit_code == 2
    assert said in ran.stderr
