"""`dsr experts prune` from its options to its file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dsr.commands.experts import app
from dsr.experts.profile import ProfileRequest, make_profiles, profile_store
from dsr.experts.prune import PruneRequest, decide, default_out, write_pruned
from dsr.models.description import describe, facts
from dsr.models.library import find
from quant.experts.profile import Profile, router_digest
from quant.experts.prune_plan import plan_random
from quant.experts.scores import DEFAULT_SCORE, SCORES
from runtime.base.errors import Aborted, DsrError, Incompatible, NotFound, UsageError
from runtime.base.events import Event, Notice, Progress
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card
from tests.gguf_writer import write

RUN = Run(threads=1)

TEXT = "".join(
    f"What is {n} plus {2 * n + 1}?\n<think>\n{n} + {2 * n + 1} = {3 * n + 1}\n</think>\nThe answer is {3 * n + 1}.\n"
    for n in range(11, 27)
)
OTHER = "Tom has 3 red apples and gives 2 of them to Mary. The word backwards is sdrawkcab, letter by letter. " * 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dsr's folder with profiles of three texts; what is measured with them stays there for the next test."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSR_HOME", str(folder))
        for name, text in (("sums", TEXT), ("words", OTHER), ("dull", "1 + 1 = 2\n" * 60)):
            (folder / name).write_text(text)
            make_profiles(find("nano"), ProfileRequest(text=folder / name, task=name), RUN)
    return folder


@pytest.fixture(autouse=True)
def _here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_HOME", str(home))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def profile(task: str) -> Profile:
    return profile_store().get(router_digest(find("nano").path), task)


def prune(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["prune", *arguments])


def done(*arguments: str) -> Result:
    result = prune(*arguments)
    assert result.exit_code == 0, result.output
    return result


def failure(*arguments: str) -> DsrError:
    result = prune(*arguments)
    assert isinstance(result.exception, DsrError), result.output
    return result.exception


def test_auto_writes_the_fewest_harmless_experts_under_a_name_with_their_number() -> None:
    found = json.loads(done("nano", "--task", "sums", "--json").stdout)
    out = Path(f"nano-sums-{found['kept']}of16.gguf")
    assert list(Path().iterdir()) == [out]
    assert found["schema"] == "dsr.experts.prune/1"
    assert (found["file"], found["tasks"], found["score"]) == (str(out), ["sums"], "easy-ep")
    assert found["damage"]["kld"] <= found["damage"]["bound"]
    assert not found["damage"]["hurts"]
    assert found["bytes_after"] == out.stat().st_size
    assert found["bytes_before"] == find("nano").path.stat().st_size
    card = read_card(out)
    assert (card.experts, card.experts_used) == (found["kept"], 4)
    assert [layer["layer"] for layer in found["layers"]] == [1, 2, 3]
    assert 4 <= found["kept"] < 16
    after = found["memory"][0]
    assert after["before"] - after["after"] == find("nano").size - out.stat().st_size + _header_growth(out)


def _header_growth(out: Path) -> int:
    """Bytes that the file has less of a saving than the weights have."""
    before, after = read_card(find("nano").path), read_card(out)
    return int((before.weights_size - after.weights_size) - (before.size - after.size))


def test_the_loss_goes_to_stderr_and_the_file_name_to_stdout() -> None:
    result = done("nano", "out.gguf", "--task", "sums", "--keep", "12", "--allow-harm")
    assert result.stdout == "out.gguf\n"
    assert "sums: keep 12 of 16 experts in each layer, ranked by easy-ep\n" in result.stderr
    assert "KL divergence, measured on the profile's text: " in result.stderr
    assert result.stderr.endswith("next: dsr chat out.gguf\n")


def test_a_dry_run_writes_nothing() -> None:
    result = done("nano", "--task", "sums", "--keep", "4", "--dry-run")
    assert result.stdout.startswith("layer")
    assert len(result.stdout.splitlines()) == 4
    assert "the loss is above the limit" in result.stderr
    found = json.loads(done("nano", "--task", "sums", "--keep", "4", "--dry-run", "--json").stdout)
    assert (found["file"], found["kept"], found["damage"]["hurts"]) == (None, 4, True)
    assert done("nano", "--task", "sums", "--keep", "25%", "--dry-run", "-q").stdout == "4\n"
    assert not list(Path().iterdir())


def test_harm_must_be_allowed() -> None:
    error = failure("nano", "--task", "sums", "--keep", "4")
    assert isinstance(error, UsageError)
    assert error.message.startswith("4 of 16 experts are too few for sums: the KL divergence is ")
    assert error.hint == "--keep auto finds how many are needed, or accept the loss with --allow-harm"
    assert "are too few" in failure("nano", "--task", "sums", "--keep", "4", "--force").message
    assert not list(Path().iterdir())
    assert done("nano", "--task", "sums", "--keep", "4", "--allow-harm").stdout == "nano-sums-4of16.gguf\n"


def test_a_file_with_all_experts_is_not_written() -> None:
    for flag in ("-q", "--force", "--allow-harm"):
        assert (
            "the file would be the same as the model"
            in failure("nano", "--task", "sums", "--keep", "100%", flag).message
        )
    assert not list(Path().iterdir())


def test_fewer_active_experts_may_harm_with_all_experts_kept() -> None:
    found = json.loads(done("nano", "--task", "words", "--active", "1", "--dry-run", "--json").stdout)
    assert (found["active"], found["active_before"], found["kept"]) == (1, 4, 16)
    assert found["damage"]["hurts"]
    error = failure("nano", "--task", "words", "--active", "1")
    assert error.message.startswith("16 of 16 experts, 1 per token, are too few for words: ")
    assert str(error.hint).startswith("omit --active")


def test_several_tasks_are_one_model() -> None:
    result = done("nano", "--task", "sums", "--task", "words", "--task", "sums", "--keep", "50%", "--allow-harm")
    assert result.stdout == "nano-sums+words-8of16.gguf\n"
    assert "sums, words: keep 8 of 16 experts" in result.stderr


def test_show_says_what_was_removed() -> None:
    done("nano", "out.gguf", "--task", "sums", "--keep", "8", "--active", "2", "--allow-harm")
    told = describe(find("out.gguf"), read_card(Path("out.gguf")), 1 << 33)
    line = dict(facts(told))["pruned"]
    assert line.startswith("8 of 16 experts of each layer are kept for sums, chosen by easy-ep; each token used 4; ")
    assert line.endswith("of the routing weight")
    pruned = told.json()["pruned"]
    assert (pruned["experts"], pruned["active"], pruned["tasks"]) == (16, 4, ["sums"])
    assert pruned["profiles"] == [profile("sums").digest]
    assert [len(kept) for kept in pruned["kept"].values()] == [8, 8, 8]
    whole = describe(find("nano"), read_card(find("nano").path), 1 << 33)
    assert whole.json()["pruned"] is None
    assert "pruned" not in dict(facts(whole))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--keep", "3"], "3 experts are too few for a layer: each token uses 4"),
        (["--keep", "17"], "--keep 17: not between 1 and the 16 experts of a layer"),
        (["--keep", "half"], "--keep half: neither a number of experts nor a percentage"),
        (["--keep", "8", "--active", "9"], "8 experts are too few for a layer: each token uses 9"),
        (["--active", "17"], "a token cannot use 17 of 16 experts"),
        (["--score", "luck"], "unknown score 'luck'"),
    ],
)
def test_impossible_numbers_are_refused(arguments: list[str], problem: str) -> None:
    error = failure("nano", "--task", "sums", *arguments)
    assert isinstance(error, UsageError)
    assert error.message == problem


def test_a_dense_model_is_refused_in_one_line() -> None:
    write(Path("dense.gguf"))
    error = failure("dense.gguf", "--task", "sums")
    assert isinstance(error, Incompatible)
    assert "is a dense model" in error.message


def test_a_task_must_be_named_and_profiled() -> None:
    assert failure("nano").message == "no task is given"
    error = failure("nano", "--task", "law")
    assert isinstance(error, NotFound)
    assert error.hint == "it has: dull, sums, words"


def test_a_profile_of_another_model_is_refused_by_digest() -> None:
    other = other_model()
    error = failure("other.gguf", "--task", "sums")
    assert isinstance(error, NotFound)
    store, digest = profile_store(), router_digest(find("nano").path)
    place = store.path(router_digest(other), "sums")
    place.parent.mkdir(parents=True)
    shutil.copy(store.path(digest, "sums"), place)
    error = failure("other.gguf", "--task", "sums")
    assert isinstance(error, Incompatible)
    assert "a profile of another model" in error.message


def other_model() -> Path:
    """The embedded model, but for one weight of its first router."""
    other = Path("other.gguf")
    shutil.copy(find("nano").path, other)
    [router] = [tensor for tensor in read_card(other).tensors if tensor.name == "blk.1.ffn_gate_inp.weight"]
    with other.open("r+b") as file:
        file.seek(router.offset)
        file.write(np.float32(0.5).tobytes())
    return other


def test_another_quantization_of_the_model_has_the_same_profiles(tmp_path: Path) -> None:
    from quant.recipe.recipe import load, plan
    from quant.sources.source import GgufSource
    from quant.write.execute import quantize

    with GgufSource(find("nano").path) as source:
        quantize(source, plan(load("q4_k"), source), Path("small.gguf"), Run(threads=1), allow_requantize=True)
    done("small.gguf", "--task", "sums", "--keep", "12", "--allow-harm")
    assert read_card(Path("small-sums-12of16.gguf")).experts == 12


def test_places_that_must_not_be_written_are_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsr.experts.prune.choose_keep", lambda *_, **__: pytest.fail("measured"))
    shutil.copy(find("nano").path, "model.gguf")
    Path("taken.gguf").write_text("mine")
    assert "is the source itself" in failure("model.gguf", "model.gguf", "--task", "sums", "--force").message
    assert failure("model.gguf", "taken.gguf", "--task", "sums").message == "taken.gguf exists already"
    assert "must end in .gguf" in failure("model.gguf", "out.bin", "--task", "sums").message
    assert Path("taken.gguf").read_text() == "mine"


def test_a_file_that_exists_is_kept_without_force() -> None:
    out = Path("nano-sums-15of16.gguf")
    out.write_text("mine")
    allowed = ("nano", "--task", "sums", "--keep", "15", "--allow-harm")
    error = failure(*allowed)
    assert error.message == f"{out} exists already"
    assert error.hint == "give another name, or --force to replace it"
    assert out.read_text() == "mine"
    done(*allowed, "--force")
    assert read_card(out).experts == 15


def test_a_stopped_run_resumes_and_says_so() -> None:
    request = PruneRequest(("sums",), "12", out=Path("out.gguf"))
    decided, stop, heard = decide(find("nano"), request, RUN), Stop(), list[Event]()

    def stopping(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 2_000_000:
            stop.set()

    with pytest.raises(Aborted, match="the same command continues"):
        write_pruned(decided, Run(stop, stopping), allow_harm=True)
    assert not Path("out.gguf").exists()
    assert write_pruned(decide(find("nano"), request, RUN), Run(listen=heard.append), allow_harm=True) == Path(
        "out.gguf"
    )
    assert any(isinstance(event, Notice) and event.text.startswith("continuing: ") for event in heard)
    assert {event.job for event in heard if isinstance(event, Progress)} == {"pruning"}
    assert list(Path().iterdir()) == [Path("out.gguf")]


def test_experts_that_no_token_was_sent_to_are_not_missed() -> None:
    unreached = profile("dull").unreached
    spare = min(len(unreached.get(layer, ())) for layer in (1, 2, 3))
    assert spare > 0
    decided = decide(find("nano"), PruneRequest(("dull",), str(16 - spare)), RUN)
    assert decided.plan.layer_lost_weight == {1: 0.0, 2: 0.0, 3: 0.0}
    assert decided.choice.point.kld.value < 1e-4


def test_the_name_of_the_file_is_one_name() -> None:
    made = replace(plan_random(read_card(find("nano").path), 8, 0), tasks=("a/b c", "größer"))
    assert default_out(find("nano"), made) == Path("nano-a-b-c+größer-8of16.gguf")
    assert default_out(find("nano"), replace(made, tasks=tuple("abcd"))) == Path("nano-4-tasks-8of16.gguf")
    shard = replace(find("nano"), path=Path("/x/M-Q4_K_M-00001-of-00002.gguf"), embedded=False)
    assert default_out(shard, replace(made, tasks=("a",))) == Path("M-Q4_K_M-a-8of16.gguf")


def test_a_random_plan_has_no_lost_weight() -> None:
    made = plan_random(read_card(find("nano").path), 8, 0)
    assert made.layer_lost_weight == MappingProxyType({})
    assert made.lost_weight == 0


def test_the_file_diverges_as_much_as_was_measured() -> None:
    from quant.measure.chunks import ChunkOptions, Text
    from quant.measure.divergence import compare

    found = json.loads(done("nano", "out.gguf", "--task", "sums", "--keep", "4", "--allow-harm", "--json").stdout)
    text = Text("sums", profile("sums").text)
    report = compare(find("nano").path, Path("out.gguf"), [text], ChunkOptions(512), Run(threads=1))
    assert found["damage"]["kld"] > 0.01
    assert report.kld.value == pytest.approx(found["damage"]["kld"], rel=0.02)


def test_the_help_names_every_score() -> None:
    text = CliRunner().invoke(app, ["prune", "--help"]).stdout
    assert all(name in text for name in SCORES)
    assert f"[default: {DEFAULT_SCORE}]" in text
