"""`dsr quantize --round`, with moments of `dsr imatrix --moments` and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dsr.commands.imatrix import imatrix
from dsr.commands.quantize import quantize
from dsr.commands.show import show
from quant.round.moments import read_complete
from quant.round.rounded_file import read_rounding
from runtime.base.errors import DsrError, Incompatible, NotFound, UsageError
from runtime.gguf.reader import read_card
from tests.quant import tiny

app = typer.Typer()
app.command("quantize")(quantize)
app.command("imatrix")(imatrix)
app.command("show")(show)
run = CliRunner().invoke
FAST = ["--round", "fast", "--recipe", "q3_k_m", "--allow-requantize", "-t", "1"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSR_HOME", str(tmp_path / "home"))


def failure(*arguments: str) -> DsrError:
    done = run(app, arguments)
    assert isinstance(done.exception, DsrError), done.output
    return done.exception


@pytest.fixture
def moments() -> Path:
    folder = Path("nano.moments")
    done = run(
        app,
        ["imatrix", "nano", "-o", "m.gguf", "--ctx-size", "64", "--chunks", "2", "-t", "1", "--moments", str(folder)],
    )
    assert done.exit_code == 0, done.output
    assert "second moments: nano.moments" in done.stderr
    return folder


def test_a_file_is_rounded_with_the_moments_of_a_folder(moments: Path) -> None:
    index = read_complete(moments).index
    assert 128 <= index.tokens < 128 + 2048
    assert index.datasets[0] == "dsr's built-in calibration text"
    done = run(
        app, ["quantize", "nano", "out.gguf", *FAST, "--moments", str(moments), "--json"], catch_exceptions=False
    )
    efforts = {tensor["name"]: tensor["round"] for tensor in json.loads(done.stdout)["tensors"]}
    assert efforts["blk.0.ffn_down.weight"] == efforts["output.weight"] == "fast"
    assert efforts["token_embd.weight"] == efforts["output_norm.weight"] == "off"
    assert "cannot correct errors (rows that are looked up: 1)" in done.stderr
    found = read_rounding(read_card(Path("out.gguf")))
    assert found is not None
    assert (found.effort, found.tensors, found.tokens) == ("fast", 46, index.tokens)
    shown = run(app, ["show", "out.gguf"], catch_exceptions=False).stdout
    assert "errors corrected in 46 tensors (fast)" in " ".join(shown.split())
    told = json.loads(run(app, ["show", "out.gguf", "--json"], catch_exceptions=False).stdout)
    assert told["rounded"]["tensors"] == 46
    assert json.loads(run(app, ["show", "nano", "--json"], catch_exceptions=False).stdout)["rounded"] is None


def test_a_checkpoint_is_collected_once_and_rounded(tmp_path: Path) -> None:
    tiny.llama(tmp_path / "tiny")
    for name in ("one.gguf", "two.gguf"):
        done = run(
            app, ["quantize", "tiny", name, "--round", "best", "--recipe", "q4_0", "-t", "1"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "home" / "cache" / "moments").glob("[!.]*")
    assert read_complete(folder).index.complete
    assert Path("one.gguf").read_bytes() == Path("two.gguf").read_bytes()
    found = read_rounding(read_card(Path("one.gguf")))
    assert found is not None and found.effort == "best" and found.staged
    assert 0 < found.tokens <= read_complete(folder).index.tokens
    shown = run(app, ["show", "one.gguf"], catch_exceptions=False).stdout
    assert "(best, with those of earlier layers)" in " ".join(shown.split())


@pytest.mark.parametrize("lost", ["text", "room"])
def test_without_stages_each_matrix_corrects_its_own_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    tiny.llama(tmp_path / "tiny")
    if lost == "text":
        monkeypatch.setattr("quant.round.moments.Moments.text", lambda _: None)
    else:
        monkeypatch.setattr("dsr.quantize.stages._SHARE", 1 << 60)
    done = run(app, ["quantize", "tiny", "one.gguf", "--round", "best", "--recipe", "q4_0", "-t", "1"])
    assert done.exit_code == 0, done.output
    why = "does not have the text" if lost == "text" else "it needs"
    assert "each matrix corrects its own errors alone: " in done.stderr
    assert why in done.stderr
    found = read_rounding(read_card(Path("one.gguf")))
    assert found is not None and found.effort == "best" and not found.staged


def test_moments_of_another_model_are_refused(moments: Path, tmp_path: Path) -> None:
    tiny.llama(tmp_path / "tiny")
    error = failure("quantize", "tiny", "out.gguf", "--round", "best", "--moments", str(moments))
    assert isinstance(error, Incompatible)
    assert "of other weights" in error.message
    assert not Path("out.gguf").exists()


def test_requests_that_contradict_themselves_are_refused() -> None:
    assert isinstance(failure("quantize", "nano", "out.gguf", "--moments", "folder"), UsageError)
    assert "is no effort" in failure("quantize", "nano", "out.gguf", "--round", "better").message
    assert isinstance(failure("quantize", "nano", "out.gguf", *FAST, "--moments", "nowhere"), NotFound)
    # before anything is collected
    assert "quantized already" in failure("quantize", "nano", "out.gguf", "--round", "best").message


def test_a_recipe_says_how_it_is_rounded_and_is_saved_so(moments: Path) -> None:
    Path("mine.toml").write_text(
        'summary = "mine"\nlabel = "q4_0"\nround = "fast"\n[[rule]]\ntype = "q4_0"\nwhy = "so"\nsource = "us"\n'
    )
    common = ["--allow-requantize", "-t", "1", "--moments", str(moments), "--json"]
    done = run(
        app, ["quantize", "nano", "one.gguf", "-r", "mine.toml", *common, "--save-recipe", "saved.toml"],
        catch_exceptions=False,
    )  # fmt: skip
    assert {tensor["round"] for tensor in json.loads(done.stdout)["tensors"]} == {"off", "fast"}
    assert 'round = "fast"' in Path("saved.toml").read_text()
    assert run(app, ["quantize", "nano", "two.gguf", "-r", "saved.toml", *common]).exit_code == 0
    assert Path("one.gguf").read_bytes() == Path("two.gguf").read_bytes()
    plain = ["quantize", "nano", "--dry-run", "-r", "mine.toml", "--round", "off", "--save-recipe", "plain.toml"]
    assert "errors of rounding" not in run(app, plain, catch_exceptions=False).stderr
    assert "round" not in Path("plain.toml").read_text()


def test_a_dry_run_collects_nothing(tmp_path: Path) -> None:
    done = run(app, ["quantize", "nano", "--round", "best", "--dry-run"], catch_exceptions=False)
    assert "errors of rounding are corrected in 46 tensors (best)" in done.stderr
    assert not (tmp_path / "home" / "cache" / "moments").exists()
