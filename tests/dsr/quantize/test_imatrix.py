"""`dsr imatrix` from its options to its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dsr.commands.imatrix import imatrix
from dsr.models.library import find
from dsr.quantize.imatrix import ImatrixRequest, coverage_in_words, make, unseen_in_words
from quant.measure.imatrix import Coverage, read
from runtime.base.errors import DsrError, Incompatible, NotFound, UsageError
from runtime.base.run import Run
from tests import gguf_writer
from tests.gguf_writer import T

app = typer.Typer()
app.command()(imatrix)
run = CliRunner().invoke

RUN = Run(threads=1)
FAST = ["--ctx-size", "64", "--chunks", "2", "-t", "1"]


def row(layer: int, unseen: tuple[int, ...] = (), least: int = 3, median: float = 7.0) -> Coverage:
    return Coverage(f"blk.{layer}.ffn_down_exps.weight", 16, unseen, least, median)


def test_a_matrix_of_the_built_in_text(tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    done = run(app, ["nano", "-o", str(out), *FAST])
    assert done.exit_code == 0
    assert done.stdout == f"{out}\n"
    assert "48 weights, 2 chunks of 64 tokens, 205.4 KiB" in done.stderr
    assert "of 48 experts seen; tokens each: least 0, median" in done.stderr
    assert "warning: " in done.stderr and " experts saw no token (layer 1: " in done.stderr
    matrix = read(out)
    assert matrix.datasets == ("dsr's built-in calibration text",)
    assert matrix.entries["blk.0.ffn_down.weight"].counts.tolist() == [128]


def test_json_says_what_was_made(tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    done = run(app, ["nano", "-o", str(out), "--json", *FAST])
    said = json.loads(done.stdout)
    assert {
        key: said[key] for key in ("schema", "model", "file", "bytes", "entries", "chunks", "context", "tokens")
    } == {
        "schema": "dsr.imatrix/1",
        "model": "nano",
        "file": str(out),
        "bytes": out.stat().st_size,
        "entries": 48,
        "chunks": 2,
        "context": 64,
        "tokens": 128,
    }
    assert said["routed_layers"] == 3
    assert [each["name"] for each in said["coverage"][:3]] == [
        f"blk.1.ffn_{part}_exps.weight" for part in ("down", "gate", "up")
    ]
    assert said["coverage"][0]["experts"] == 16 and 15 in said["coverage"][0]["unseen"]


def test_without_a_name_the_file_is_named_after_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(app, ["nano", "--quiet", *FAST])
    assert done.stdout == "nano.imatrix.gguf\n"
    assert [file.name for file in tmp_path.iterdir()] == ["nano.imatrix.gguf"]


def test_own_texts_are_read_one_after_the_other_and_an_earlier_matrix_is_added(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("What is 12 * 7? " * 20)
    first = ImatrixRequest(tmp_path / "1.gguf", (tmp_path / "a.txt",), context=64, chunks=1)
    make(find("nano"), first, RUN)
    both = ImatrixRequest(
        tmp_path / "2.gguf",
        (tmp_path / "a.txt", tmp_path / "b.txt"),
        context=64,
        chunks=2,
        add=(tmp_path / "1.gguf",),
    )
    matrix = make(find("nano"), both, RUN).matrix
    assert matrix.datasets == ("a.txt", "b.txt")
    assert matrix.chunk_count == 3
    assert matrix.entries["blk.0.ffn_down.weight"].counts.tolist() == [192]
    assert matrix.routed_tokens == 192


def refused(error: type[DsrError], problem: str, **request: object) -> None:
    with pytest.raises(error, match=problem):
        make(find("nano"), ImatrixRequest(**{"context": 64, "chunks": 1, **request}), RUN)  # type: ignore[arg-type]


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    out.write_bytes(b"old")
    refused(UsageError, "exists already", out=out)
    assert out.read_bytes() == b"old"
    assert make(find("nano"), ImatrixRequest(out, context=64, chunks=1, force=True), RUN).size > 1000


def test_what_is_read_is_never_overwritten(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("text")
    refused(UsageError, "would be overwritten", out=find("nano").path, force=True)
    refused(UsageError, "would be overwritten", out=text, texts=(text,), force=True)
    assert text.read_text() == "text"


def test_bad_requests_end_before_the_model_is_loaded(tmp_path: Path, nano_path: Path) -> None:
    out = tmp_path / "m.gguf"
    refused(UsageError, "is a folder", out=tmp_path)
    refused(NotFound, "none.txt: no such file", out=out, texts=(tmp_path / "none.txt",))
    refused(UsageError, r"is not a text file \(UTF-8\): byte 181 is wrong", out=out, texts=(nano_path,))
    refused(Incompatible, "not an importance matrix", out=out, add=(nano_path,))
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("1 + 1")
    refused(UsageError, "and one chunk has 64", out=tmp_path / "m.gguf", texts=(text,))


def test_a_matrix_of_another_model_is_not_added(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    metadata = {"general.type": "imatrix", "imatrix.chunk_count": 1, "imatrix.chunk_size": 64}
    name = "blk.0.ffn_down.weight"
    tensors = [T(f"{name}.in_sum2", (8,)), T(f"{name}.counts", (1,))]
    other.write_bytes(gguf_writer.gguf(metadata, tensors))
    refused(Incompatible, f"cannot merge: {name} has 512 sums", out=tmp_path / "m.gguf", add=(other,))


def test_coverage_in_words() -> None:
    rows = [row(1, (15,), least=0, median=2596.5), row(2, least=9, median=3000.0)]
    # Gate and up see what down sees, so they are not counted again.
    rows.append(Coverage("blk.1.ffn_up_exps.weight", 16, (15,), 0, 1.0))
    assert coverage_in_words(rows) == "31 of 32 experts seen; tokens each: least 0, median 3000"
    assert coverage_in_words([]) == ""


def test_a_warning_names_the_experts_that_saw_nothing() -> None:
    assert unseen_in_words([row(1), row(2)]) is None
    one = unseen_in_words([row(1, (15,)), row(2)])
    assert one is not None and one.startswith("1 expert saw no token (layer 1: 15): quantizing takes the mean")
    many = unseen_in_words([row(layer, (0, 3)) for layer in range(6)])
    assert many is not None
    assert many.startswith(
        "12 experts saw no token (layer 0: 0, 3; layer 1: 0, 3; layer 2: 0, 3; layer 3: 0, 3; and in 2 more layers)"
    )
