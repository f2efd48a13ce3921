"""`dsr bench quality` from its options to its rows, with the embedded model and smaller files made of it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dsr.bench.quality import bench
from dsr.bench.quality.bench import QualityRequest, measure
from dsr.bench.quality.tables import plus_minus, short
from dsr.cli import app
from dsr.models.library import find
from dsr.store.measurement import Measurement
from dsr.store.measurements import Measurements
from dsr.store.paths import measurements_file
from quant.measure import divergence
from quant.measure.base_file import digest
from quant.measure.chunks import ChunkOptions, Text, chunks
from quant.measure.divergence import Base, Estimate, compare
from quant.measure.texts import HELD_OUT
from runtime.base.errors import Aborted, DoesNotFit, DsrError, Incompatible, NotFound, UsageError, VerificationFailed
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card
from runtime.llama import Scorer
from tests import gguf_writer
from tests.quant.engine_quantizer import reference

TEXT = "A train leaves at 9 and arrives at 11. How long does it take? It takes 11 - 9 = 2 hours. " * 12
SHAPE = ["--chunks", "2", "--ctx-size", "64", "-t", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, nano_path: Path) -> dict[str, Path]:
    """Files of the embedded model, and the same number of tokens with other words."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: reference(nano_path, folder / f"{name}.gguf", name) for name in ("q4_0", "q2_k")}
    return found | {
        "other": gguf_writer.write(folder / "other.gguf", gguf_writer.llama_metadata(), gguf_writer.llama_tensors())
    }


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def ask(*words: object) -> Result:
    return CliRunner().invoke(app, ["bench", "quality", *map(str, words)])


def said(*words: object) -> dict[str, Any]:
    result = ask(*words, "--json")
    assert result.exit_code == 0, result.stderr or result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refusal(kind: type[DsrError], *words: object) -> str:
    """The one line that says what is wrong."""
    done = ask(*words)
    assert (done.exit_code, done.stdout) == (kind.exit_code, ""), done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def test_a_row_for_each_file(files: dict[str, Path], text: Path, nano_path: Path) -> None:
    found = said(files["q4_0"], "nano", "--against", "nano", "--text", text, *SHAPE)
    assert found["schema"] == "dsr.bench.quality/1"
    assert found["reference"]["model"] == "nano"
    assert (found["text"], found["context"], found["chunks"], found["tokens"]) == ("text.txt", 64, 2, 62)
    assert (found["base"], found["failed"], found["interrupted"]) == ("whole", [], False)
    first, second = found["rows"]
    assert (first["model"], second["model"]) == (str(files["q4_0"]), "nano")
    assert (first["bytes"], second["bytes"]) == (files["q4_0"].stat().st_size, nano_path.stat().st_size)
    assert first["bpw"] < 5.5 < second["bpw"]
    assert abs(second["kld_mean"]) < 1e-6 < first["kld_mean"]
    assert (second["top1_agreement"], second["ln_ppl_ratio"], second["probability_rms"]) == (1.0, 0.0, 0.0)
    assert 0 < first["kld_median"] < first["kld_90"] < first["kld_95"] < first["kld_99"] < first["kld_max"]
    assert first["kld_bound"] is None
    assert Measurement.of({field.name: first[field.name] for field in fields(Measurement)}).model == first["model"]


def test_conversations_are_read_whole_where_it_is_asked_for(nano_path: Path) -> None:
    found = said("nano", "--against", "nano", "--whole", "--chunks", 2, "-t", 1)
    with Scorer(nano_path, window=2048) as model:
        first = [
            model.tokenize(text.content, add_bos=True) for text in HELD_OUT.each_for_model(read_card(nano_path))[:2]
        ]
    assert (found["whole"], found["chunks"], found["tokens"]) == (True, 2, sum(len(tokens) - 1 for tokens in first))
    assert found["rows"][0]["test"] == "2 whole of builtin"
    assert found["rows"][0]["parameters"]["whole"] == 1


def test_a_base_file_holds_no_whole_conversations(tmp_path: Path) -> None:
    told = refusal(UsageError, "nano", "--against", "nano", "--whole", "--base", tmp_path / "f16.base")
    assert told == "a base file holds chunks, and --whole reads conversations"


def test_the_figures_are_those_of_measuring_two_files(files: dict[str, Path], text: Path, nano_path: Path) -> None:
    row = said(files["q4_0"], "--against", "nano", "--text", text, *SHAPE)["rows"][0]
    report = compare(nano_path, files["q4_0"], [Text("t", TEXT)], ChunkOptions(64, 2), Run(threads=1))
    assert (row["ppl"], row["ppl_stderr"]) == (report.perplexity.value, report.perplexity.error)
    assert (row["kld_mean"], row["kld_stderr"]) == (report.kld.value, report.kld.error)
    assert (row["top1_agreement"], row["top1_stderr"]) == (report.same_top.value, report.same_top.error)
    assert row["probability_rms"] == report.probability_rms.value


def test_rows_are_kept(files: dict[str, Path], text: Path) -> None:
    found = said(files["q4_0"], files["q2_k"], "--against", "nano", "--text", text, *SHAPE)
    with Measurements(measurements_file()) as kept:
        rows = [each.row for each in reversed(kept.list(kind="quality"))]
    assert [row.model for row in rows] == [str(files["q4_0"]), str(files["q2_k"])]
    assert rows[0].test == rows[1].test == "2 x 64 of text.txt"
    assert rows[0].parameters == rows[1].parameters
    assert rows[0].parameters["against"] == "nano"
    assert rows[0].size == files["q4_0"].stat().st_size
    assert rows[0].digest != rows[1].digest
    assert rows[0].figures["kld_mean"].mean == found["rows"][0]["kld_mean"]
    assert rows[0].figures["kld_mean"].count == 62
    assert set(rows[0].figures) == {
        "ppl", "ppl_ratio", "kld_mean", "kld_median", "kld_90", "kld_95", "kld_99", "kld_max", "top1_agreement",
        "probability_rms", "bpw",
    }  # fmt: skip


def test_rows_are_not_kept_when_nobody_wants_them(text: Path) -> None:
    said("nano", "--against", "nano", "--text", text, *SHAPE, "--no-log")
    assert not measurements_file().exists()


def test_figures_are_shown_where_they_cannot_be_kept(text: Path) -> None:
    measurements_file().parent.mkdir(parents=True)
    measurements_file().mkdir()
    done = ask("nano", "--against", "nano", "--text", text, *SHAPE)
    assert done.exit_code == 0
    assert "nano" in done.stdout
    assert "warning: not saved for dsr bench history: " in done.stderr


def test_a_table_for_people(files: dict[str, Path], text: Path) -> None:
    done = ask(files["q4_0"], "--against", "nano", "--text", text, *SHAPE)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "model"
    assert lines[1].startswith("q4_0 ")
    assert max(map(len, lines)) <= 80
    assert "1 file against nano, 2 chunks of 64 tokens of text.txt: 62 tokens scored" in done.stderr


def test_quiet_is_a_line_for_each(text: Path) -> None:
    done = ask("nano", "--against", "nano", "--text", text, *SHAPE, "-q")
    assert (done.stdout.strip(), done.stderr) in [("nano\t0.000000", ""), ("nano\t-0.000000", "")]


def test_csv_and_markdown(files: dict[str, Path], text: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "t.csv", tmp_path / "t.md"
    said(files["q4_0"], "nano", "--against", "nano", "--text", text, *SHAPE, "--csv", table, "--markdown", page)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["model"] for row in rows] == [str(files["q4_0"]), "nano"]
    assert rows[0]["against"] == "nano"
    assert float(rows[1]["top1_agreement"]) == 1
    written = page.read_text()
    assert written.startswith("# 2 files against nano, 2 chunks of 64 tokens of text.txt")
    assert "\n| model | size | bpw | perplexity | KLD | same top | change | KLD median |" in written
    assert "\n| q4_0 | " in written


def test_the_built_in_text_is_the_one_that_is_held_out(nano_path: Path) -> None:
    found = said("nano", "--against", "nano", *SHAPE)
    assert (found["text"], found["tokens"]) == ("builtin", 62)
    texts = [HELD_OUT.for_model(read_card(nano_path))]
    with Scorer(nano_path, window=64) as model:
        assert found["rows"][0]["parameters"]["text_digest"] == digest(chunks(model, texts, ChunkOptions(64, 2)))


def test_a_base_is_written_and_used(files: dict[str, Path], text: Path, tmp_path: Path) -> None:
    base = tmp_path / "nano.base"
    whole = said(files["q2_k"], "--against", "nano", "--text", text, *SHAPE, "--base", base)
    assert (whole["base"], whole["base_bytes"]) == ("whole", base.stat().st_size)
    kept = said(files["q2_k"], "--text", text, "-t", "1", "--base", base)
    assert (kept["base"], kept["chunks"], kept["context"]) == ("kept", 2, 64)
    assert kept["reference"]["model"] == "nano"
    assert kept["reference"]["ppl"] == pytest.approx(whole["reference"]["ppl"], rel=1e-9)
    before, after = whole["rows"][0], kept["rows"][0]
    assert after["ppl"] == before["ppl"]
    assert after["top1_agreement"] == before["top1_agreement"]
    assert after["kld_bound"] < before["kld_mean"]
    assert abs(after["kld_mean"] - before["kld_mean"]) < 4 * after["kld_stderr"]
    with Measurements(measurements_file()) as measurements:
        newest = measurements.list(kind="quality")[0].row
    assert newest.parameters["base"] == "kept"
    assert newest.figures["kld_bound"].mean == after["kld_bound"]


def test_what_a_kept_base_bounds_is_told(text: Path, tmp_path: Path) -> None:
    base = tmp_path / "nano.base"
    done = ask("nano", "--against", "nano", "--text", text, *SHAPE, "--base", base)
    assert "the figures above are from the whole output" in done.stderr
    done = ask("nano", "--text", text, *SHAPE, "--base", base, "--against", "nano")
    assert "The KLD is at least " in done.stderr and "There are no upper bounds" in done.stderr


def test_a_base_of_something_else_is_refused(files: dict[str, Path], text: Path, tmp_path: Path) -> None:
    base = tmp_path / "nano.base"
    said("nano", "--against", "nano", "--text", text, *SHAPE, "--base", base)
    words = ["nano", "--base", base, "-t", "1"]
    told = refusal(VerificationFailed, *words, "--text", text, "--against", files["q4_0"])
    assert told == f"{base} is the output of another model: nano"
    told = refusal(UsageError, *words, "--text", text, "--ctx-size", "32")
    assert told == f"{base} holds 2 chunks of 64 tokens"
    assert "another text, or another tokenizer" in refusal(Incompatible, *words)
    base.write_bytes(base.read_bytes()[:-1])
    assert "a damaged recording: its check sum is wrong" in refusal(VerificationFailed, *words, "--text", text)


def test_without_a_reference_nothing_is_measured(text: Path, tmp_path: Path) -> None:
    assert refusal(UsageError, "nano", "--text", text) == "no reference to compare with"
    missing, lost = tmp_path / "b", tmp_path / "no" / "b"
    told = refusal(UsageError, "nano", "--text", text, "--base", missing)
    assert told == f"no reference to compare with: {missing} does not exist yet"
    told = refusal(NotFound, "nano", "--against", "nano", "--text", text, "--base", lost)
    assert told == f"{lost.parent}: no such folder"


def test_a_place_where_nothing_can_be_written_is_noticed_before_anything_is_read(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Base, "record", None)
    words = ["nano", "--against", "nano", "--text", text, *SHAPE]
    long = tmp_path / ("b" * 250)  # as a name it may be, but the file that becomes it has a longer one
    for option in ("--base", "--csv", "--markdown"):
        assert refusal(DsrError, *words, option, long) == f"{long}: cannot be written: File name too long"
        assert " directory" in refusal(DsrError, *words, option, tmp_path)
    assert list(tmp_path.iterdir()) == [text]


@pytest.mark.parametrize("content", ["", "\n", "too short for a chunk"])
def test_too_little_text_is_refused(text: Path, content: str) -> None:
    text.write_text(content)
    assert "and one chunk has 64" in refusal(UsageError, "nano", "--against", "nano", "--text", text, *SHAPE)


def test_a_text_that_is_none_is_refused(text: Path, tmp_path: Path) -> None:
    text.write_bytes(b"\xff\xfe\x00")
    assert "is not a text file" in refusal(UsageError, "nano", "--against", "nano", "--text", text, *SHAPE)
    assert "no such file" in refusal(NotFound, "nano", "--against", "nano", "--text", tmp_path / "no", *SHAPE)


def test_another_vocabulary_is_refused_before_anything_is_read(
    files: dict[str, Path], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Base, "record", None)
    told = refusal(Incompatible, files["other"], "--against", "nano", "--text", text, *SHAPE)
    assert "in its vocabulary, and its base 640: their outputs cannot be compared" in told


def test_other_tokens_of_the_same_number_are_refused(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut, order = divergence.parts_of, [1]

    def parts_of(*words: Any) -> tuple[tuple[int, ...], ...]:
        order.append(-1)  # the reference is first
        return tuple(part[:: order[-2]] for part in cut(*words))

    monkeypatch.setattr(divergence, "parts_of", parts_of)
    told = refusal(Incompatible, "nano", "--against", "nano", "--text", text, *SHAPE)
    assert told == "nano.gguf splits the text into other tokens than the reference: their vocabularies differ"


def test_a_model_that_fails_in_the_middle_is_told_and_the_others_go_on(
    files: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    shutil.copy(files["q4_0"], broken)
    local = find(str(broken))
    broken.write_bytes(files["q4_0"].read_bytes()[:-100_000])
    models = [find(str(files["q4_0"])), local, find(str(files["other"])), find("nano")]
    made = measure(models, QualityRequest(find("nano"), text, 2, 64), Run(threads=1))
    assert [each.model for each in made.measured] == [str(files["q4_0"]), "nano"]
    assert [model for model, _ in made.failed] == [str(broken), str(files["other"])]


def test_what_fails_while_it_is_measured_is_told(
    files: dict[str, Path], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = bench.settle_threads
    calls: list[object] = []

    def settled(model: Any, threads: int | None) -> int:
        calls.append(model)
        if len(calls) == 2:  # the reference is first
            raise DoesNotFit("no memory is left")
        return settle(model, threads)

    monkeypatch.setattr(bench, "settle_threads", settled)
    done = ask(files["q4_0"], "nano", "--against", "nano", "--text", text, *SHAPE, "--json")
    assert done.exit_code == DoesNotFit.exit_code
    found = json.loads(done.stdout)
    assert [row["model"] for row in found["rows"]] == ["nano"]
    assert found["failed"] == [{"model": str(files["q4_0"]), "why": "no memory is left"}]
    assert "warning: q4_0 was not measured: no memory is left" in done.stderr


class StopAfter:
    """Ctrl-C while the model of that number is read; the reference is number 1."""

    def __init__(self, stop: Stop, number: int) -> None:
        self._stop, self._left = stop, number

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.job == "measuring" and event.done < event.total:
            self._left -= 1
            if not self._left:
                self._stop.set()


def test_a_file_that_was_calibrated_on_the_text_is_told(text: Path, tmp_path: Path) -> None:
    matrix, small = tmp_path / "m.gguf", tmp_path / "small.gguf"
    text.write_text(TEXT * 2)
    runner = CliRunner().invoke
    assert (
        runner(
            app, ["imatrix", "nano", "--text", str(text), "-o", str(matrix), "--ctx-size", "64", "-t", "1"]
        ).exit_code
        == 0
    )
    quantize = ["quantize", "nano", str(small), "-r", "q4_0", "--imatrix", str(matrix), "--allow-requantize", "-t", "1"]
    assert runner(app, quantize).exit_code == 0
    done = ask(small, "nano", "--against", "nano", "--text", text, *SHAPE)
    assert "warning: calibrated on this text, so the loss looks too small: small\n" in done.stderr


def test_a_file_that_was_calibrated_on_the_built_in_text_is_not_flattered(tmp_path: Path) -> None:
    matrix, small = tmp_path / "m.gguf", tmp_path / "small.gguf"
    runner = CliRunner().invoke
    assert runner(app, ["imatrix", "nano", "-o", str(matrix), *SHAPE]).exit_code == 0
    quantize = ["quantize", "nano", str(small), "-r", "q4_0", "--imatrix", str(matrix), "--allow-requantize", "-t", "1"]
    assert runner(app, quantize).exit_code == 0
    assert read_card(small).metadata["quantize.imatrix.dataset"] == "dsr's built-in calibration text"
    assert said(small, "--against", "nano", *SHAPE)["rows"][0]["calibrated_on_text"] is False


def test_what_is_measured_is_kept_when_it_is_stopped(files: dict[str, Path], text: Path) -> None:
    stop, kept = Stop(), []
    request = QualityRequest(find("nano"), text, 2, 64)
    models = [find(str(files["q4_0"])), find(str(files["q2_k"])), find("nano")]
    made = measure(models, request, Run(stop, StopAfter(stop, 3), threads=1), keep=kept.append)
    assert made.interrupted
    assert [each.model for each in made.measured] == [row.model for row in kept] == [str(files["q4_0"])]


def test_being_stopped_before_anything_is_measured_is_an_abort(text: Path) -> None:
    stop = Stop()
    run = Run(stop, StopAfter(stop, 1), threads=1)
    with pytest.raises(Aborted):
        measure([find("nano")], QualityRequest(find("nano"), text, 2, 64), run)


def test_stopped_commands_show_what_there_is_and_exit_with_130(
    files: dict[str, Path], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, calls = Base.compare, list[object]()

    def stopped(self: Base, *words: Any, **more: Any) -> Any:
        calls.append(self)
        if len(calls) == 2:
            raise Aborted
        return compare(self, *words, **more)

    monkeypatch.setattr(Base, "compare", stopped)
    done = ask(files["q4_0"], "nano", "--against", "nano", "--text", text, *SHAPE)
    assert done.exit_code == 130
    assert "\nq4_0 " in done.stdout
    assert "warning: stopped after 1 file" in done.stderr
    with Measurements(measurements_file()) as kept:
        assert len(kept.list(kind="quality")) == 1


@pytest.mark.parametrize(
    ("value", "error", "wanted"),
    [
        (0.06531, 0.00171, "0.0653 ±0.0017"),
        (658.57, 36.3, "659 ±36"),
        (9.2538, 0.5, "9.25 ±0.50"),
        (1.0, 0.0, "1.0000 ±0.0000"),
        (2.8e-8, 1e-9, "0.0000000 ±0.0000000"),
    ],
)
def test_figures_have_the_digits_that_are_known(value: float, error: float, wanted: str) -> None:
    assert plus_minus(Estimate(value, error)) == wanted


def test_paths_are_shortened_and_references_are_not() -> None:
    assert [short("/a/b.Q4_0.gguf"), short("qwen3:8b"), short("a/b:Q4")] == ["b.Q4_0", "qwen3:8b", "a/b:Q4"]
