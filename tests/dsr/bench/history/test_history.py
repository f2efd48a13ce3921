"""StoredMeasurement rows: read back from files, listed with what changed, compared, deleted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.bench.history import formats, history
from dsr.bench.history.compare import compare
from dsr.cli import app
from dsr.store import paths
from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.store.measurements import Measurements, StoredMeasurement
from runtime.base.errors import NotFound, UsageError

HERE = Conditions("a processor", 2, 8 << 30, "0.1", "0.3.36", load=0.0)
ROW = Measurement(
    "speed", "nano", "d1", 100, "tg128", {"threads": 2}, {"tokens_per_second": Figure(100.0, 1.0, 4)}, HERE, 1.0
)


def faster(mean: float, **more: object) -> Measurement:
    return replace(ROW, figures={"tokens_per_second": Figure(mean, 1.0, 4)}, **more)  # type: ignore[arg-type]


@pytest.fixture
def store() -> Measurements:
    return Measurements(paths.measurements_file())


def invoke(*words: str) -> str:
    done = CliRunner().invoke(app, ["bench", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_row_as_an_object_has_its_means_first_and_comes_back() -> None:
    made = formats.as_object(replace(ROW, figures={**ROW.figures, "joules_per_token": Figure(0.5)}))
    assert list(made)[:6] == ["model", "test", "tokens_per_second", "joules_per_token", "tokens_per_joule", "stddev"]
    assert (made["tokens_per_second"], made["stddev"], made["count"], made["tokens_per_joule"]) == (100.0, 2.0, 4, 2.0)


def test_files_of_rows_are_read_back(tmp_path: Path) -> None:
    rows = (ROW, faster(50.0, test="pp512"))
    lines, whole = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    lines.write_text(formats.as_jsonl(rows))
    whole.write_text(json.dumps({"schema": "x", "rows": [formats.as_object(row) for row in rows]}, indent=1))
    assert formats.read(lines) == rows == formats.read(whole)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", "{}", '{"rows": []}', '{"rows": [1]}', '{"rows": 3}', "\x00", "3"]
)
def test_files_of_something_else_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match=r"has no measurements|is not a text file"):
        formats.read(tmp_path / "x.json")
    with pytest.raises(NotFound, match="no such file"):
        formats.read(tmp_path / "missing.json")


def test_csv_has_a_column_for_all_that_any_row_has() -> None:
    header, first, second = formats.as_csv(
        [ROW, replace(ROW, figures={"bytes": Figure(5)}, parameters={})]
    ).splitlines()
    assert header.split(",")[:5] == ["model", "test", "tokens_per_second", "stddev", "count"]
    assert first.startswith("nano,tg128,100.0,2.0,4,speed,d1,100,1.0,2,") and second.endswith(",5")


def test_a_row_is_held_against_the_one_before_it_of_the_same_kind() -> None:
    rows = [
        ROW,
        faster(40.0, parameters={"threads": 1}),
        faster(100.5),
        faster(40.0, digest="d2"),
        faster(80.0, conditions=replace(HERE, engine="0.3.40")),
    ]
    latest, other, same, threads, first = history.entries(
        [StoredMeasurement(n, row) for n, row in enumerate(rows, 1)][::-1]
    )
    assert first.before is threads.before is other.before is None
    assert same.before is not None and same.before.id == 1
    assert same.change is not None and same.change.differs is False and not same.worse
    assert latest.before is not None and latest.before.id == 3 and latest.worse
    assert latest.describe() == (
        "#5 nano tg128: tokens_per_second fell to 0.80 times that of #3, more than its 95 % interval; "
        "engine was 0.3.36, now 0.3.40"
    )
    assert history.table([latest]).rows[0][2:] == ("nano", "tg128", "80.0", "t/s", "-20.4 % worse")
    assert history.table([first]).rows[0][-1] == ""


def test_of_seconds_more_is_worse() -> None:
    slow, quick = (replace(ROW, figures={"seconds": Figure(mean, 0.01, 4)}) for mean in (2.0, 1.0))
    assert [entry.worse for entry in history.entries([StoredMeasurement(2, slow), StoredMeasurement(1, quick)])] == [
        True,
        False,
    ]
    found = history.entries([StoredMeasurement(2, quick), StoredMeasurement(1, slow)])
    assert [row[-1] for row in history.table(found).rows] == ["-50.0 % better", ""]


def test_what_is_compared_is_a_model_a_number_or_a_file(store: Measurements, tmp_path: Path) -> None:
    store.add([ROW, faster(50.0), faster(70.0, digest="old", test="pp8"), faster(60.0, test="pp512")])
    assert [row.figures["tokens_per_second"].mean for row in history.chosen("nano", store)] == [50.0, 60.0]
    assert history.chosen("#1", store) == history.chosen("1", store) == (ROW,)
    (tmp_path / "x.jsonl").write_text(formats.as_jsonl([ROW]))
    assert history.chosen(str(tmp_path / "x.jsonl"), store) == (ROW,)
    with pytest.raises(NotFound, match="nosuch was not measured"):
        history.chosen("nosuch", store)
    with pytest.raises(NotFound, match="there is no measurement 99"):
        history.chosen("99", store)


def test_a_file_is_found_by_its_name(store: Measurements) -> None:
    store.add([faster(50.0, model="/far/away/q4.gguf", digest="d4"), ROW])
    for named in ("/far/away/q4.gguf", "q4.gguf", "q4"):
        assert [row.model for row in history.chosen(named, store)] == ["/far/away/q4.gguf"]
        assert [kept.id for kept in history.listed(store, model=named)] == [1]


def test_rows_with_the_same_parameters_are_paired() -> None:
    one = [faster(10.0, parameters={"threads": 1}), faster(20.0, parameters={"threads": 2})]
    two = [faster(40.0, parameters={"threads": 2}), faster(11.0, parameters={"threads": 1})]
    made = compare(one, two)
    assert [(r.test, r.ratio) for r in made.ratios] == [("tg128 threads=1", 1.1), ("tg128 threads=2", 2.0)]
    with pytest.raises(UsageError, match="threads 2 and 3"):
        compare(one, [faster(1.0, parameters={"threads": 3})])


def test_what_was_predicted_is_not_compared() -> None:
    row = replace(ROW, figures={**ROW.figures, "predicted_tokens_per_second": Figure(90.0)})
    assert [ratio.figure for ratio in compare([row], [row]).ratios] == ["tokens_per_second"]


def test_the_history_command(store: Measurements) -> None:
    assert invoke("history") == ""
    store.add([ROW, faster(80.0), faster(1.0, kind="quality", model="other")])
    lines = invoke("history").splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "3", "2", "1"]
    assert lines[2].endswith("-20.0 % worse")
    assert (
        "the latest 1 of 3 measurements; see more with --limit"
        in CliRunner().invoke(app, ["bench", "history", "--limit", "1"]).stderr
    )
    assert invoke("history", "--quiet", "--kind", "speed", "--limit", "1") == "2\tnano\ttg128\t80.0\tt/s\n"
    [row] = json.loads(invoke("history", "--json", "--model", "nano", "--limit", "1"))["rows"]
    assert (row["id"], row["before"], row["beyond_interval"], row["worse"]) == (2, 1, True, True)
    assert row["change"] == 0.8
    assert json.loads(invoke("history", "--delete", "2", "--json", "-y"))["deleted"] == 2
    assert [kept.id for kept in store.list()] == [3, 1]


def test_what_history_cannot_do_is_one_line(store: Measurements) -> None:
    store.add([ROW])
    for words, code, told in (
        (["--kind", "x"], 2, "'x' is not a kind of measurement"),
        (["--delete", "9", "-y"], 3, "there is no measurement 9"),
        (["--delete", "1"], 2, "there is no terminal to ask at"),
    ):
        done = CliRunner().invoke(app, ["bench", "history", *words])
        assert done.exit_code == code and told in " ".join(done.stderr.split())


def test_the_compare_command(store: Measurements) -> None:
    store.add(
        [ROW, faster(80.0, model="b", digest="d2"), faster(80.0, model="c", digest="d3", parameters={"threads": 1})]
    )
    assert invoke("compare", "nano", "b").splitlines()[1].split() == (
        ["tg128", "100.0", "80.0", "t/s", "0.800", "0.769-0.832", "differs"]
    )
    said = json.loads(invoke("compare", "1", "2", "--json"))
    assert (said["schema"], said["first"], said["second"]) == ("dsr.bench.compare/1", "nano", "b")
    assert said["ratios"][0]["ratio"] == 0.8
    refused = CliRunner().invoke(app, ["bench", "compare", "nano", "c"])
    assert refused.exit_code == 2 and "threads 2 and 1" in refused.stderr
    assert invoke("compare", "nano", "c", "--force", "--quiet") == "speed\ttg128\ttokens_per_second\t0.8000\n"
