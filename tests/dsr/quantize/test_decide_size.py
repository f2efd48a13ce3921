"""`dsr quantize --bpw, --size, --fit` and `--measure` from their options to their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dsr.cli import app
from dsr.quantize import size
from quant.round.rounded_file import read_rounding
from quant.sources.source import Source
from quant.to_a_size.allocate import Fitted, plan_of_size
from quant.to_a_size.losses import Losses
from runtime.base.types import ByteCount
from runtime.gguf.reader import read_card
from runtime.machine.host import probe
from runtime.placement.memory import need

TEXT = "What is 12 + 30? Let me add column by column. 2 + 0 = 2, 1 + 3 = 4. The answer is 42.\n" * 24


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows and few types are tried, and nobody evaluates the model sixty times: its attention matters most."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("quant.to_a_size.losses._SAMPLE", 1 << 12)
    monkeypatch.setattr("quant.to_a_size.losses.CANDIDATES", ("Q2_K", "Q4_0", "Q4_K", "Q6_K"))

    def best(source: Source, budget: int, losses: Losses, *_: object) -> Fitted:
        weights = {name: 0.5 if "attn" in name else 0.01 for name in losses}
        return plan_of_size(source, budget, losses, weights)

    monkeypatch.setattr("quant.to_a_size.search.best_of_size", best)


@pytest.fixture
def not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what must be refused at once."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured in vain")

    monkeypatch.setattr("quant.to_a_size.losses.measure_losses", refuse)
    monkeypatch.setattr("dsr.quantize.moments.moments_of", refuse)


def memory(monkeypatch: pytest.MonkeyPatch, mebibytes: int) -> ByteCount:
    available = ByteCount(mebibytes << 20)
    monkeypatch.setattr(size, "probe", lambda: replace(probe(), memory_available=available))
    return available


def dsr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["quantize", "nano", "--round", "off", *arguments])


def planned(*arguments: str) -> dict[str, Any]:
    done = dsr(*arguments, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def refused(code: int, *arguments: str) -> str:
    """The error, which is one line of what and why and at most one of what helps."""
    done = dsr(*arguments)
    lines = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert lines[0].startswith("error: ") and [line[:6] for line in lines[1:]] in ([], ["hint: "]), done.stderr
    return lines[0].removeprefix("error: ")


def types(said: dict[str, Any], part: str) -> set[str]:
    return {tensor["to"] for tensor in said["tensors"] if part in tensor["name"]}


def test_bits_per_weight_are_an_upper_limit_and_go_where_they_matter() -> None:
    said = planned("--bpw", "4")
    assert 3.9 < said["bpw"] <= 4
    assert said["recipe"] == "4bpw"
    assert said["predicted_kld"] > 0.0001
    assert types(said, "attn_q_b") == {"Q8_0"}
    assert types(said, "exps") == {"Q2_K", "Q4_K"}
    assert planned("--bpw", "5")["predicted_kld"] < said["predicted_kld"]


def test_a_dry_run_tells_the_loss_and_the_memory() -> None:
    done = dsr("--bpw", "4", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["tensors", "type", "weights", "bits", "size", "layers"]
    assert lines[-1].startswith("4bpw: 12.2M weights, 3.99 bits per weight, 5.85 MiB (")
    assert max(map(len, lines)) <= 80
    assert "predicted KL divergence from the source: 0.0" in done.stderr
    assert "memory to run it: 8" in done.stderr and " at 2048 tokens of context" in done.stderr


def test_the_file_is_no_larger_than_the_size_and_fills_it() -> None:
    done = dsr("--size", "6MB", "--allow-requantize")
    assert (done.exit_code, done.stdout) == (0, "nano-5.72MiB.gguf\n")
    assert 5_980_000 < Path("nano-5.72MiB.gguf").stat().st_size <= 6_000_000
    assert done.stderr.endswith("next: dsr chat nano-5.72MiB.gguf\n")
    assert read_card(Path("nano-5.72MiB.gguf")).architecture == "deepseek2"


@pytest.mark.parametrize("context", ["1024", "2048"])
def test_what_fits_the_memory_fits_it_with_the_context_asked_for(monkeypatch: pytest.MonkeyPatch, context: str) -> None:
    available = memory(monkeypatch, 95)
    done = dsr("mine.gguf", "--fit", "-c", context, "--allow-requantize", "-q")
    assert (done.exit_code, done.stdout) == (0, "mine.gguf\n"), done.stderr
    total = need(read_card(Path("mine.gguf")), int(context)).total
    # A tenth stays free, as for every model that is opened.
    assert available * 0.88 < total <= available * 0.9


@pytest.mark.usefixtures("not_measured")
def test_what_is_small_enough_already_is_kept_without_measuring() -> None:
    done = dsr("mine.gguf", "--size", "1GiB")
    assert (done.exit_code, done.stdout) == (0, "mine.gguf\n"), done.output
    assert "nano has 12.5 MiB as it is, and 1.00 GiB are allowed: it is kept so" in done.stderr
    # Nothing is quantized again, so that needs no leave.
    assert read_card(Path("mine.gguf")).bits_per_weight == pytest.approx(8.53, abs=0.01)
    assert planned("--bpw", "16")["predicted_kld"] == 0


def test_a_context_that_leaves_no_room_for_weights_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 8)
    assert refused(5, "--fit").endswith(" are allowed")


def test_a_model_larger_than_the_memory_is_planned_by_errors_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 16)
    done = dsr("--bpw", "4", "--dry-run")
    assert "nano does not fit in 14.4 MiB of memory, so its divergence is not measured" in done.stderr
    assert "how much each tensor matters was not measured on the model" in done.stderr
    assert "predicted" not in done.stderr


def test_what_was_lost_is_told_beside_what_was_predicted() -> None:
    Path("text.txt").write_text(TEXT)
    command = ("out.gguf", "--bpw", "4", "--measure", "text.txt", "-t", "1", "--allow-requantize")
    done = dsr(*command)
    assert (done.exit_code, done.stdout) == (0, "out.gguf\n"), done.output
    *_, perplexity, divergence, top = done.stderr.splitlines()
    assert perplexity.startswith("perplexity ") and ", of the source " in perplexity
    assert divergence.startswith("KL divergence from the source 0.") and "nats (predicted 0.0" in divergence
    assert top.startswith("same top token 0.") and top.endswith(", on 510 tokens")


def test_the_measurement_is_a_part_of_the_json() -> None:
    Path("text.txt").write_text(TEXT)
    done = dsr("out.gguf", "-r", "q2_k", "--measure", "text.txt", "-t", "1", "--allow-requantize", "--json")
    said = json.loads(done.stdout)
    assert (said["schema"], said["files"], said["predicted_kld"]) == ("dsr.quantize/1", ["out.gguf"], None)
    measured = said["measured"]
    assert set(measured) == {"tokens", "base_perplexity", "perplexity", "log_ratio", "kld", "same_top"}
    assert measured["tokens"] == 510
    assert 0.01 < measured["kld"]["value"] < 2 and 0 < measured["kld"]["error"] < measured["kld"]["value"]


def test_a_saved_plan_gives_the_same_types_as_a_recipe() -> None:
    found = planned("--bpw", "4", "--save-recipe", "mine.toml")
    again = planned("--recipe", "mine.toml")
    assert [each["to"] for each in again["tensors"]] == [each["to"] for each in found["tensors"]]
    assert (again["bytes"], again["recipe"]) == (found["bytes"], "mine")
    assert "losses of types and their divergence measured on this model" in Path("mine.toml").read_text(
        encoding="utf-8"
    )
    planned("--recipe", "q4_k_m", "--save-recipe", "q4.toml")
    assert "[C] dsr quantize: the recipe q4_k_m" in Path("q4.toml").read_text(encoding="utf-8")


@pytest.mark.usefixtures("not_measured")
@pytest.mark.parametrize(
    ("size", "allowed"),
    [
        (("--bpw", "1"), "1.48 MiB (1551910 bytes) are allowed"),
        (("--size", "1MB"), "976.6 KiB (1000000 bytes) are allowed"),
    ],
)
def test_an_impossible_budget_names_the_smallest_size_before_anything_is_measured(
    size: Sequence[str], allowed: str
) -> None:
    said = refused(5, *size)
    assert said.startswith("the smallest possible file of this model has 3.94 MiB (4129984 bytes), and ")
    assert said.endswith(allowed)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--bpw", "4", "--size", "6MB"), "--bpw, --size and --fit exclude one another"),
        (("--bpw", "4", "--fit"), "--bpw, --size and --fit exclude one another"),
        (("--size", "6MB", "--recipe", "q4_k_m"), "a recipe has its own size: --recipe excludes"),
        (("--bpw", "0"), "0.0 bits per weight are not possible"),
        (("--bpw", "nan"), "nan bits per weight are not possible"),
        (("--size", "small"), "'small' is not a size"),
        (("--bpw", "4", "--dry-run", "--measure", "text.txt"), "a dry run makes no file"),
        (("--bpw", "4", "--measure", "nano.gguf"), "nano.gguf is not a text file (UTF-8): byte 1 is wrong"),
        (("--bpw", "4", "--save-recipe", "there.toml"), "there.toml exists already"),
        (("--bpw", "4", "--save-recipe", "."), ". is a folder"),
        (("there.gguf", "--bpw", "4"), "there.gguf exists already"),
        (("--bpw", "4"), "47 tensors are quantized already (Q8_0)"),
    ],
)
@pytest.mark.usefixtures("not_measured")
def test_what_makes_no_sense_is_refused_before_anything_is_measured(options: Sequence[str], problem: str) -> None:
    for name in ("there.gguf", "there.toml"):
        Path(name).write_bytes(b"1")
    Path("text.txt").write_text(TEXT)
    Path("nano.gguf").write_bytes(b"G\xff")
    assert refused(2, *options).startswith(problem)
    assert Path("there.gguf").read_bytes() == Path("there.toml").read_bytes() == b"1"


@pytest.mark.usefixtures("not_measured")
def test_a_text_or_folder_that_is_not_there_is_not_found() -> None:
    assert refused(3, "--bpw", "4", "--measure", "none.txt") == "none.txt: no such file"
    assert refused(3, "none/out.gguf", "--bpw", "4", "--allow-requantize") == "none: no such folder"


def test_a_size_corrects_errors_unless_asked_not_to() -> None:
    collected = ["imatrix", "nano", "-o", "m.gguf", "--ctx-size", "64", "--chunks", "2", "-t", "1", "--moments", "m"]
    assert CliRunner().invoke(app, collected).exit_code == 0
    command = ["quantize", "nano", "out.gguf", "--size", "6MB", "--allow-requantize", "-t", "1", "--moments", "m", "-q"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout) == (0, "out.gguf\n"), done.output
    assert 5_980_000 < Path("out.gguf").stat().st_size <= 6_000_000
    found = read_rounding(read_card(Path("out.gguf")))
    assert found is not None and found.effort == "best" and found.tensors > 10  # some stay Q8_0
    assert "Q2_K" in {tensor.type for tensor in read_card(Path("out.gguf")).tensors}
