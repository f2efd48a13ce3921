"""The loss of each type on each tensor, with and without second moments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quant.round.moments import Moments, MomentsIndex, Part
from quant.sources.source import GgufSource, TensorSpec
from quant.to_a_size.losses import candidates, completed, drawn, measure_losses, nearest_in_full
from runtime.base.errors import Aborted
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from tests.quant.models import importance, model

RUN = Run(threads=1)


@pytest.fixture(autouse=True)
def _few_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.to_a_size.losses._SAMPLE", 1 << 12)


def few(monkeypatch: pytest.MonkeyPatch, *types: str) -> None:
    monkeypatch.setattr("quant.to_a_size.losses.CANDIDATES", types)


def tensor(name: str, *shape: int, stored: str = "F16") -> TensorSpec:
    return TensorSpec(name, shape, stored)


def moments_of(folder: Path, weights: tuple[str, ...], columns: int, counts: tuple[int, ...]) -> Moments:
    """Moments of inputs whose columns go together."""
    random = np.random.default_rng(5)
    mixed = random.standard_normal((columns, columns)) * 0.97 ** np.arange(columns)[:, None]
    sums = np.zeros((len(counts), columns, columns), np.float32)
    for number, count in enumerate(counts):
        if count:
            x = (random.standard_normal((count, columns)) @ mixed).astype(np.float32)
            sums[number] = x.T @ x
    found = Moments(folder, MomentsIndex("source", "text", sum(counts), ("text",)))
    folder.mkdir()
    found.add(Part("part.npy", weights, columns, 0, counts), sums)
    found.finish()
    return found


def test_rows_that_do_not_divide_by_256_have_types_with_blocks_of_32() -> None:
    found = candidates(tensor("blk.0.attn_q.weight", 576, 576), importance=True)
    assert found == ("IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16")
    assert candidates(tensor("blk.0.attn_q.weight", 20, 576), importance=True) == ("F16",)
    # Where blocks of 256 fit, their types lose less.
    assert not set(found[:5]) & set(candidates(tensor("blk.0.attn_q.weight", 512, 576), importance=True))


def test_types_that_need_an_importance_are_there_only_with_one() -> None:
    need = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"}
    weight = tensor("blk.0.attn_q.weight", 256, 256)
    assert not need & set(candidates(weight, importance=False))
    assert need <= set(candidates(weight, importance=True))
    # The embedding never has one, and the engine makes these without.
    assert {"IQ2_S", "IQ3_XXS"} <= set(candidates(tensor("token_embd.weight", 256, 100), importance=False))


def test_norms_and_routers_stay() -> None:
    assert candidates(tensor("blk.0.attn_norm.weight", 256, stored="F32"), importance=True) == ("F32",)
    assert candidates(tensor("blk.0.ffn_gate_inp.weight", 256, 16, stored="F32"), importance=True) == ("F32",)


def test_losses_fall_with_bits_and_know_the_importance(tmp_path: Path) -> None:
    path = model(tmp_path / "model.gguf", layers=1, width=256, hidden=32, experts=2)
    with GgufSource(path) as source:
        plain = measure_losses(source, None, tmp_path / "one", RUN)
        weighted = measure_losses(source.with_importance(importance(path)), None, tmp_path / "one", Run(threads=2))
    for name in ("blk.0.attn_q.weight", "blk.0.ffn_gate_exps.weight"):
        each = plain[name]
        assert 0 < each["Q8_0"] < 1e-4 < each["Q6_K"] < each["Q5_K"] < each["Q4_K"] < each["Q3_K"] < each["Q2_K"] < 0.2
        assert each["F16"] == 0
        assert weighted[name]["Q2_K"] != each["Q2_K"]
        assert weighted[name]["IQ3_XXS"] < weighted[name]["IQ2_XXS"] < weighted[name]["IQ1_S"]
    assert "blk.0.attn_norm.weight" not in plain


def test_with_moments_the_loss_is_that_of_rounded_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, "IQ1_M", "Q3_K", "Q4_K", "Q8_0")
    name = "blk.0.attn_q.weight"
    path = model(tmp_path / "model.gguf", layers=1, width=256)
    with GgufSource(path) as opened:
        moments = moments_of(tmp_path / "moments", (name,), 256, (1000,))
        source = opened.with_importance({name: moments.diagonals()[name][0]})
        rounded = measure_losses(source, moments, tmp_path / "cache", RUN)[name]
        monkeypatch.setattr("quant.to_a_size.losses.TYPES", ())
        plain = measure_losses(source, moments, tmp_path / "other cache", RUN)[name]
    assert rounded["Q3_K"] < 0.7 * plain["Q3_K"] and rounded["Q4_K"] < 0.7 * plain["Q4_K"]
    assert rounded["IQ1_M"] == plain["IQ1_M"] > 0.01  # has no grid
    assert rounded["F16"] == 0


def test_experts_are_drawn_as_often_as_they_are_used() -> None:
    assert drawn(np.array([5, 5, 5]), 8) == [0, 1, 2]
    assert drawn(np.array([1000, 0, 0, 1000]), 4) == [0, 3]
    assert drawn(np.array([700, 0, 100, 200]), 10) == [0] * 7 + [2] + [3] * 2
    assert drawn(np.ones(16, np.int64), 8) == [1, 3, 5, 7, 9, 11, 13, 15]


def test_an_expert_without_tokens_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, "Q3_K")
    path = model(tmp_path / "model.gguf", layers=1, width=256, hidden=32, experts=4)
    name, read = "blk.0.ffn_up_exps.weight", []
    original = GgufSource.read
    with GgufSource(path) as source:
        moments = moments_of(tmp_path / "moments", (name,), 256, (0, 300, 0, 100))
        monkeypatch.setattr(
            GgufSource,
            "read",
            lambda self, t, first, count: (read.append((t.name, first)), original(self, t, first, count))[1],
        )
        losses = measure_losses(source, moments, tmp_path / "cache", RUN)
    assert {first // 32 for each, first in read if each == name} >= {1, 3}
    first_read = read.index((name, 32))  # rows that tell one source from another are read before
    assert {first // 32 for each, first in read[first_read:] if each == name} == {1, 3}
    assert losses[name]["Q3_K"] > 0


def test_a_stopped_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, "Q4_K", "Q8_0")
    path = model(tmp_path / "model.gguf", layers=1, width=256)
    stop, heard = Stop(), []

    def after_four(event: Event) -> None:
        heard.append(event)
        if len(heard) == 5:
            stop.set()

    with GgufSource(path) as source:
        with pytest.raises(Aborted):
            measure_losses(source, None, tmp_path / "cache", Run(stop, after_four, threads=1))
        [file] = (tmp_path / "cache").iterdir()
        before = json.loads(file.read_text())
        assert 1 <= len(before) < 9
        again: list[Event] = []
        found = measure_losses(source, None, tmp_path / "cache", Run(listen=again.append, threads=1))
        assert all(found[name] == each for name, each in before.items())
        left = sum(len(each) for name, each in found.items() if name not in before)
        assert again[-1] == Progress("trying", "types", 100 * left, 100 * left, "steps")
        again.clear()
        assert measure_losses(source, None, tmp_path / "cache", Run(listen=again.append)) == found
        assert again == []


def test_any_number_of_threads_gives_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, "Q3_K", "Q4_K")
    names = ("blk.0.attn_q.weight", "blk.0.attn_k.weight")
    path = model(tmp_path / "model.gguf", layers=1, width=256)
    with GgufSource(path) as source:
        moments = moments_of(tmp_path / "moments", names, 256, (500,))
        one = measure_losses(source, moments, tmp_path / "one", Run(threads=1))
        assert measure_losses(source, moments, tmp_path / "four", Run(threads=4)) == one


def test_a_few_layers_of_each_kind_stand_for_the_others() -> None:
    specs = [tensor(f"blk.{layer}.attn_q.weight", 256, 256) for layer in range(30)]
    specs += [tensor("blk.0.ffn_up.weight", 256, 64), tensor("blk.1.ffn_up.weight", 256, 128)]
    nearest = nearest_in_full(specs)
    assert nearest["blk.1.ffn_up.weight"] == "blk.1.ffn_up.weight"  # of another shape
    full = sorted({name for name in nearest.values() if "attn_q" in name}, key=lambda name: int(name.split(".")[1]))
    assert full == [f"blk.{layer}.attn_q.weight" for layer in (3, 11, 18, 26)]
    assert nearest["blk.7.attn_q.weight"] == full[0] and nearest["blk.8.attn_q.weight"] == full[1]
    assert nearest["blk.29.attn_q.weight"] == full[3]


def test_a_layer_has_the_ratios_of_the_nearest_one() -> None:
    nearest = {"Q2_K": 0.1, "Q4_K": 0.01, "F16": 0.0}
    assert completed({"Q4_K": 0.02}, nearest, ("Q2_K", "Q4_K", "F16")) == {"Q2_K": 0.2, "Q4_K": 0.02, "F16": 0.0}
    assert completed(nearest, nearest, ("Q2_K", "Q4_K", "F16")) == nearest


def test_layers_in_between_are_nearly_as_if_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, "Q2_K", "Q4_K", "Q6_K")
    path = model(tmp_path / "model.gguf", layers=6, width=256)
    with GgufSource(path) as source:
        some = measure_losses(source, None, tmp_path / "some", RUN)
        monkeypatch.setattr("quant.to_a_size.losses._IN_FULL", 6)
        every = measure_losses(source, None, tmp_path / "every", RUN)
    assert some.keys() == every.keys()
    for name, each in every.items():
        assert some[name] == {kind: pytest.approx(loss, rel=0.1) for kind, loss in each.items()}
