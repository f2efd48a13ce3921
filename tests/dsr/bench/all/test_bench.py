"""`dsr bench all`: what is measured of which file, and what a repeated command still does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr.bench.all import bench as work
from dsr.bench.all import tables
from dsr.bench.all.files import recipes_of
from dsr.bench.all.request import AllRequest, model_request, of_model
from dsr.bench.all.rows import ITSELF, AllBench
from dsr.bench.all.tables import as_markdown
from dsr.bench.speed.bench import SpeedBench, SpeedFailure, SpeedRequest
from dsr.cli import app
from dsr.models.library import find
from dsr.models.model import Model
from dsr.store.measurement import Conditions, Figure, Measurement
from runtime.base.errors import Aborted, BadModelFile, DoesNotFit, Incompatible, NotFound, UsageError
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from tests.quant.models import model as dense_model

CONDITIONS = Conditions("cpu", 2, 1 << 30, "0", "0", 0.25, "other work took 25 % of the processor")
TINY = SpeedRequest(prompts=(8,), generated=(2,), votes=(2,), repetitions=1)


@dataclass
class Fakes:
    """Stand for the four benches. `done` is what was measured, in order; `broken` and `stopping` name what is not."""

    done: list[str] = field(default_factory=list)
    kept: list[Measurement] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    stopping: set[str] = field(default_factory=set)
    conditions: Conditions = CONDITIONS

    def _row(self, kind: Any, local: Model, test: str, figures: dict[str, Figure]) -> Measurement:
        card = read_card(local.path)
        model = local.reference if local.embedded else str(local.path.absolute())
        opened = {"context": 256, "slots": 2, "kv_type": "f16"}
        return Measurement(
            kind, model, card.header_digest, int(local.size), test, opened, figures, self.conditions, 0.0
        )

    def quality(self, models: Sequence[Model], request: Any, run: Run, *, keep: Any) -> Any:
        failed = []
        for local in models:
            if f"quality {local.path.stem}" in self.stopping:
                return SimpleNamespace(failed=(), interrupted=True)
            if f"quality {local.path.stem}" in self.broken:
                failed.append((local.path.name, Incompatible("other words")))
                continue
            self.done.append(f"quality {local.path.stem}")
            figures = {"ppl": Figure(8.5, 0.25, 900), "kld_mean": Figure(0.05, 0.002, 900)}
            figures |= {"ppl_ratio": Figure(1.01, 0.001, 900), "top1_agreement": Figure(0.9, 0.01, 900)}
            keep(self._row("quality", local, "2 x 512 of builtin", figures))
        return SimpleNamespace(failed=tuple(failed), interrupted=False)

    def speed(self, work: Any, run: Run) -> SpeedBench:
        [job] = work
        name = f"speed {job.model.path.stem}"
        if name in self.stopping:
            return SpeedBench((), (), interrupted=True)
        if name in self.broken:
            return SpeedBench((), (SpeedFailure("m", "the engine crashed", 1),), interrupted=False)
        self.done.append(name)
        rows = [self._row("speed", job.model, "pp512", {"tokens_per_second": Figure(99.0, 1.5, 3)})]
        rows += [self._row("speed", job.model, "memory", {"bytes": Figure(50 << 20)})]
        return SpeedBench(tuple(rows), (), interrupted=False)

    def reason(self, local: Model, request: Any, run: Run) -> Any:
        self.done.append(f"answers {local.path.stem}")
        if f"answers {local.path.stem}" in self.stopping:
            raise Aborted
        score = SimpleNamespace(row=SimpleNamespace(label="greedy"), accuracy=1.0, low=0.21, high=1.0)
        row = self._row("reason", local, "greedy", {"accuracy": Figure(1.0, 0.2, 1)})
        return SimpleNamespace(scores=(score,), interrupted=False, measurements=(row,))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()
    monkeypatch.setattr(work.quality, "measure", made.quality)
    monkeypatch.setattr(work.speed, "measure", made.speed)
    monkeypatch.setattr(work.reason, "measure", made.reason)
    monkeypatch.setattr(work, "solved_problems", lambda bench: {"greedy": {"one": 1.0}})
    return made


REQUEST = AllRequest(recipes=("q4_0,q3_k_m",), strategies=("none",), experts=("none",), limit=1, allow_requantize=True)


def run(fakes: Fakes, request: AllRequest = REQUEST, *models: Model) -> AllBench:
    return work.measure(models or [find("nano")], request, Run(), keep=fakes.kept.extend)


def made_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.gguf"))


def test_lists_of_recipes() -> None:
    assert recipes_of((), experts=False) == ()
    assert recipes_of(("q4_0, q2_k", "q4_0"), experts=False) == ("q4_0", "q2_k")
    assert {"f16", "dq3_k_m", "q2_k"} < set(recipes_of(("all",), experts=True))
    assert set(recipes_of(("all",), experts=True)) - set(recipes_of(("all",), experts=False)) >= {"dq3_k_m", "moe-q4"}
    assert recipes_of(("dq3_k_m",), experts=False) == ("dq3_k_m",)
    with pytest.raises(UsageError):
        recipes_of(("q4_0,nothing",), experts=False)


def test_values_for_all_models_and_for_one() -> None:
    names = ("m", "other")
    assert of_model((), "m", names) == ()
    assert of_model(("q4_0", "m=q2_k,q8_0"), "m", names) == ("q2_k,q8_0",)
    assert of_model(("q4_0", "m=q2_k"), "other", names) == ("q4_0",)
    assert of_model(("budget:tokens=16", "m=budget:tokens=32"), "other", names) == ("budget:tokens=16",)
    assert of_model(("budget:tokens=16", "m=budget:tokens=32"), "m", names) == ("budget:tokens=32",)
    assert of_model(("typo=q4_0",), "m", names) == ("typo=q4_0",)


def test_every_file_has_its_row(fakes: Fakes) -> None:
    made = run(fakes)
    parts = ("quality nano", "quality nano-q4_0", "quality nano-q3_k_m")
    rest = [f"{what} {name}" for name in ("nano", "nano-q4_0", "nano-q3_k_m") for what in ("speed", "answers")]
    assert fakes.done == [*parts, *rest]
    [result] = made.results
    assert [(file.recipe, file.answers is not None, len(file.speed)) for file in result.files] == [
        (ITSELF, True, 2),
        ("q4_0", True, 2),
        ("q3_k_m", True, 2),
    ]
    assert not made.interrupted and result.left_out == ()
    kinds = [row.kind for row in fakes.kept]
    assert (kinds.count("quality"), kinds.count("speed"), kinds.count("reason")) == (3, 6, 3)
    assert len({row.digest for row in fakes.kept if row.kind == "quality"}) == 3


def test_memory_is_told_beside_what_was_predicted(fakes: Fakes) -> None:
    [result] = run(fakes, replace(REQUEST, recipes=())).results
    [row] = tables.costs(result).rows
    assert row[:2] == ("nano", "99 ±2†")
    assert row[2] == "50.0 MiB" and row[3].endswith(" MiB")


def test_a_repeated_command_measures_nothing(fakes: Fakes) -> None:
    first = run(fakes)
    before, kept = list(fakes.done), len(fakes.kept)
    assert run(fakes).json() == first.json()
    assert fakes.done == before and len(fakes.kept) == kept


def test_another_command_measures_what_is_missing(fakes: Fakes) -> None:
    run(fakes)
    fakes.done.clear()
    more = run(fakes, replace(REQUEST, recipes=("q4_0,q8_0",)))
    assert fakes.done == ["quality nano-q8_0", "speed nano-q8_0", "answers nano-q8_0"]
    assert [file.recipe for file in more.results[0].files] == [ITSELF, "q4_0", "q8_0"]
    fakes.done.clear()
    run(fakes, replace(REQUEST, recipes=(), limit=2))
    assert fakes.done == ["answers nano"]


def test_disturbed_speeds_are_measured_again_when_that_is_wanted(fakes: Fakes) -> None:
    run(fakes)
    fakes.done.clear()
    fakes.conditions = replace(CONDITIONS, disturbed="")
    again = replace(REQUEST, again=True)
    assert run(fakes, again).results[0].files[0].speed[0].conditions.disturbed == ""
    assert fakes.done == ["speed nano", "speed nano-q4_0", "speed nano-q3_k_m"]
    fakes.done.clear()
    assert run(fakes, again).json() == run(fakes).json()
    assert fakes.done == []


def test_speeds_are_measured_again_once_though_still_disturbed(fakes: Fakes) -> None:
    run(fakes)
    fakes.done.clear()
    assert not run(fakes, replace(REQUEST, recipes=(), again=True)).interrupted
    assert fakes.done == ["speed nano"]


def test_made_files_go_unless_they_are_kept(fakes: Fakes, tmp_path: Path) -> None:
    run(fakes)
    assert made_files(tmp_path) == []
    run(fakes, replace(REQUEST, limit=2, chunks=2, keep=tmp_path / "kept"))
    assert made_files(tmp_path) == ["nano-q3_k_m.gguf", "nano-q4_0.gguf"]
    models = [row.model for row in fakes.kept if row.kind == "quality"]
    assert models[:3] == ["nano", "nano-q4_0.gguf", "nano-q3_k_m.gguf"]
    assert models[4:] == [str(tmp_path / "kept" / "nano-q4_0.gguf"), str(tmp_path / "kept" / "nano-q3_k_m.gguf")]


def test_rows_tell_the_command_that_measures_them_again(fakes: Fakes) -> None:
    run(fakes, replace(REQUEST, command="dsr bench all nano --recipes q4_0,q3_k_m"))
    assert {row.command for row in fakes.kept} == {"dsr bench all nano --recipes q4_0,q3_k_m"}


@pytest.mark.parametrize("what", ["quality", "speed", "answers"])
def test_ctrl_c_keeps_what_is_measured(fakes: Fakes, tmp_path: Path, what: str) -> None:
    fakes.stopping.add(f"{what} nano-q4_0")
    stopped = run(fakes)
    assert stopped.interrupted and fakes.kept
    assert "nano-q4_0.gguf" in made_files(tmp_path)
    before = [name for name in fakes.done if name != f"{what} nano-q4_0"]
    fakes.stopping.clear()
    fakes.done.clear()
    assert not run(fakes).interrupted
    assert not set(before) & set(fakes.done)
    assert made_files(tmp_path) == []


def test_what_fails_is_told_and_the_others_go_on(fakes: Fakes) -> None:
    fakes.broken |= {"quality nano-q4_0", "speed nano-q3_k_m"}
    made = run(fakes)
    assert made.results[0].left_out == (("nano-q4_0", "other words"), ("q3_k_m", "the engine crashed"))
    assert [(file.quality is None, len(file.speed)) for file in made.results[0].files] == [
        (False, 2),
        (True, 2),
        (False, 0),
    ]
    assert tables.warnings(made)[0] == "nano, nano-q4_0: other words"
    fakes.broken.clear()
    fakes.done.clear()
    run(fakes)
    assert fakes.done == ["quality nano-q4_0", "speed nano-q3_k_m"]


def test_weights_that_are_quantized_already_are_refused_unless_allowed(fakes: Fakes) -> None:
    made = run(fakes, replace(REQUEST, recipes=("q4_0",), allow_requantize=False))
    [(what, why)] = made.results[0].left_out
    assert what == "q4_0" and "quantized already" in why
    assert [file.recipe for file in made.results[0].files] == [ITSELF]


def test_a_file_that_is_none_does_not_keep_the_others_from_their_rows(fakes: Fakes, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    request = replace(REQUEST, recipes=())
    made = run(fakes, request, find(str(tmp_path / "broken.gguf")), find("nano"))
    assert [name for name, _ in made.failed] == ["broken.gguf"]
    assert [result.name for result in made.results] == ["nano"]
    with pytest.raises(BadModelFile):
        run(fakes, request, find(str(tmp_path / "broken.gguf")))


def test_a_dense_model_gets_neither_expert_recipes_nor_questions(fakes: Fakes, tmp_path: Path) -> None:
    path = dense_model(tmp_path / "dense.gguf")
    made = run(fakes, replace(REQUEST, recipes=("dq3_k_m",), experts=("50%",)), find(str(path)))
    [result] = made.results
    assert ("dq3_k_m", "dq3_k_m is for mixtures of experts") in result.left_out
    assert [file.recipe for file in result.files] == [ITSELF]
    assert result.suite is None and result.experts is None
    assert not any(name.startswith("answers") for name in fakes.done)


def test_room_on_the_disk_is_checked_before_anything_is_made(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(DoesNotFit, match=r"the files to measure need .* MiB, 1.00 MiB are free"):
        run(fakes)
    assert fakes.done == [] and made_files(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipes": ("q4_0,q5_9",)},
        {"strategies": ("guess",)},
        {"strategies": ("vote:n=9",)},
        {"experts": ("half",)},
        {"experts": ("99",)},
        {"recipes": ("nanno=q4_0",)},
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(fakes: Fakes, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run(fakes, replace(REQUEST, **wrong))
    assert fakes.done == []


def test_an_unknown_suite_is_refused_before_anything_is_measured(fakes: Fakes) -> None:
    with pytest.raises(NotFound):
        run(fakes, replace(REQUEST, suites=("riddles",)))
    assert fakes.done == []


def test_a_model_may_have_questions_of_its_own(fakes: Fakes, tmp_path: Path) -> None:
    path = dense_model(tmp_path / "dense.gguf")
    request = replace(REQUEST, recipes=("dense=",), suites=("dense=nano-profile",))
    made = run(fakes, request, find("nano"), find(str(path)))
    assert [result.suite for result in made.results] == ["nano", "nano-profile"]
    assert "answers dense" in fakes.done


def test_fewer_experts_than_a_token_uses_are_told_and_left_out() -> None:
    card = read_card(find("nano").path)
    asked = model_request(AllRequest(experts=("50%", "auto", "3")), find("nano"), card, ["nano"])
    assert asked.experts == ("50%", "auto")
    assert asked.refused == (("keep 3", "3 experts are too few for a layer: each token uses 4"),)


def test_the_document(fakes: Fakes) -> None:
    page = as_markdown(run(fakes), "dsr bench all nano", "2026-01-02")
    assert page.startswith(
        "# What files, strategies and pruning are worth\n\n    dsr bench all nano\n\nMade 2026-01-02 "
    )
    assert "Other work took 25 % of the processor in the median, 25 % at most; 9 of 9 measurements were" in page
    assert "| 0.0500 ±0.0020 | 8.50 ±0.25 | 90.0 | 100.0 | 21-100 | 99 ±2† | 50.0 MiB | " in page
    assert "were quantized before, to 8.53 bits" in page
    assert "/" not in page.partition("\n## nano")[2].partition("tokens/s")[0].partition("|")[0]


def test_the_whole_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(work, "SPEED_OF_MODEL", TINY)
    monkeypatch.setattr(work, "SPEED_OF_FILE", TINY)
    page = tmp_path / "all.md"
    words = ["bench", "all", "nano", "--limit", "1", "--chunks", "1", "--max-tokens", "8", "--strategies", "none"]
    words += ["--experts", "none", "--recipes", "q4_0", "--allow-requantize", "--threads", "1"]
    told = CliRunner().invoke(app, [*words, "--markdown", str(page), "--json"])
    assert told.exit_code == 0, told.output
    made = json.loads(told.stdout)
    assert made["schema"] == "dsr.bench.all/1"
    [model] = made["models"]
    assert [row["recipe"] for row in model["rows"]] == [None, "q4_0"]
    assert model["rows"][0]["quality"]["figures"]["kld_mean"]["mean"] == pytest.approx(0, abs=1e-6)
    assert model["rows"][1]["quality"]["figures"]["kld_mean"]["mean"] > 0.001
    assert len(model["rows"][1]["answers"]["solved"]) == 1
    assert page.read_text(encoding="utf-8").count("| q4_0 |") == 1


def test_ctrl_c_ends_the_command_with_130_and_shows_what_there_is(fakes: Fakes, tmp_path: Path) -> None:
    fakes.stopping.add("speed nano")
    page = tmp_path / "all.md"
    words = ["bench", "all", "nano", "--strategies", "none", "--experts", "none", "--markdown", str(page)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 130
    assert "0.0500 ±0.0020" in told.stdout and "stopped: repeat the command to resume" in told.stderr
    assert "0.0500 ±0.0020" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(fakes: Fakes, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["bench", "all", "nano", "--markdown", str(tmp_path)])
    assert told.exit_code == 1
    assert told.stderr == (
        f"error: {tmp_path}: cannot be written: Is a directory\n"
        "hint: name another file, in a folder that you may change\n"
    )
    assert fakes.done == []
