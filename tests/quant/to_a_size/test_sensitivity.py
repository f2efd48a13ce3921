"""Errors of types, groups of tensors, and the divergence that a coarse group causes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quant.measure.chunks import ChunkOptions, Text
from quant.sources.source import GgufSource, TensorSpec
from quant.to_a_size.sensitivity import Curve, groups, measure
from quant.to_a_size.type_errors import candidates, measure_errors
from runtime.base.errors import Aborted, DsrError
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from tests.quant.models import importance, model

NANO = Path(__file__).resolve().parents[3] / "dsr" / "data" / "nano.gguf"
CHUNKS = ChunkOptions(context=64, limit=1)
RUN = Run(threads=1)
TEXT = Text("text", "What is 12 + 30? Let me add column by column. 2 + 0 = 2, 1 + 3 = 4. The answer is 42. " * 8)


def tensor(name: str, *shape: int, stored: str = "F16") -> TensorSpec:
    return TensorSpec(name, shape, stored)


def test_rows_that_do_not_divide_by_256_have_types_with_blocks_of_32() -> None:
    found = candidates(tensor("blk.0.attn_q.weight", 576, 576), importance=True)
    assert found == ("IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16")
    assert candidates(tensor("blk.0.attn_q.weight", 20, 576), importance=True) == ("F16",)


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


def test_errors_fall_with_bits_and_know_the_importance(tmp_path: Path) -> None:
    path = model(tmp_path / "model.gguf", layers=1, width=256, hidden=32, experts=2)
    with GgufSource(path) as source:
        plain = measure_errors(source, RUN)
        weighted = measure_errors(source.with_importance(importance(path)), Run(threads=2))
    for name in ("blk.0.attn_q.weight", "blk.0.ffn_gate_exps.weight"):
        each = plain[name]
        assert 0 < each["Q8_0"] < 1e-4 < each["Q6_K"] < each["Q5_K"] < each["Q4_K"] < each["Q3_K"] < each["Q2_K"] < 0.2
        assert each["F16"] == 0
        assert weighted[name]["Q2_K"] != each["Q2_K"]
        assert weighted[name]["IQ3_XXS"] < weighted[name]["IQ2_XXS"] < weighted[name]["IQ1_S"]
    assert "blk.0.attn_norm.weight" not in plain


def test_columns_without_importance_cost_nothing(tmp_path: Path) -> None:
    path = model(tmp_path / "model.gguf", layers=1, width=256)
    # One whole block of 32 counts, and the quantizer gives it all it has.
    weights = np.zeros((1, 256), np.float32)
    weights[0, :32] = 1
    with GgufSource(path) as source:
        plain = measure_errors(source, RUN)["blk.0.attn_q.weight"]["Q2_K"]
        found = measure_errors(source.with_importance({"blk.0.attn_q.weight": weights}), RUN)["blk.0.attn_q.weight"][
            "Q2_K"
        ]
    assert found < plain


def test_a_large_tensor_is_sampled_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model(tmp_path / "model.gguf", layers=1, width=256, hidden=256, experts=4)
    weights, name = importance(path), "blk.0.ffn_up_exps.weight"
    with GgufSource(path) as source:
        whole = measure_errors(source.with_importance(weights), RUN)[name]
        read: list[int] = []
        monkeypatch.setattr("quant.to_a_size.type_errors._SAMPLE", 1 << 15)
        original = GgufSource.read
        monkeypatch.setattr(
            GgufSource, "read", lambda self, t, first, count: (read.append(count), original(self, t, first, count))[1]
        )
        sampled = measure_errors(source.with_importance(weights), RUN)[name]
    assert 16 in read  # runs of the experts' 1024 rows
    assert sampled["Q2_K"] == pytest.approx(whole["Q2_K"], rel=0.1)
    assert sampled["Q4_K"] == pytest.approx(whole["Q4_K"], rel=0.1)


def test_groups_are_single_tensors_until_there_are_too_many() -> None:
    specs = [tensor("token_embd.weight", 256, 64), tensor("output_norm.weight", 256, stored="F32")]
    for layer in range(12):
        specs += [tensor(f"blk.{layer}.attn_q.weight", 256, 256), tensor(f"blk.{layer}.ffn_up.weight", 256, 256)]
    assert len(groups(specs, 25)) == 25
    thirds = groups(specs, 7)
    assert [group.name for group in thirds][:3] == ["token_embd.weight", "attn_q.weight 1/3", "ffn_up.weight 1/3"]
    assert thirds[1].tensors == tuple(f"blk.{layer}.attn_q.weight" for layer in range(4))
    assert len(groups(specs, 1)) == 3  # kinds are never mixed
    assert sorted(name for group in thirds for name in group.tensors) == sorted(
        spec.name for spec in specs if "norm" not in spec.name
    )


def test_a_curve_follows_a_power_of_the_error() -> None:
    curve = Curve(((0.01, 0.001), (0.1, 0.01)))
    assert curve.divergence(0.01) == pytest.approx(0.001)
    assert curve.divergence(0.05) == pytest.approx(0.005)
    assert curve.divergence(1.0) == pytest.approx(0.1)
    assert curve.divergence(0.0) == 0
    # What falls a thousandfold over a tenth of the error is noise: at most the power 1.6 is believed.
    assert Curve(((0.01, 1e-6), (0.1, 0.01))).divergence(0.001) == pytest.approx(1e-6 * 10**-1.6)
    assert Curve(((0.1, 0.01),)).divergence(0.05) == pytest.approx(0.005)


def test_a_measurement_is_kept_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.to_a_size.type_errors.CANDIDATES", ("Q2_K", "Q4_0", "Q8_0"))
    shape: Any = {"most_groups": 1, "probes": ("Q2_K",)}
    left = tmp_path / ".sensitivity-killed"
    left.mkdir()
    (left / "model.gguf").write_bytes(b"1")
    with GgufSource(NANO) as source:
        errors = measure_errors(source, RUN)
        stop = Stop()

        measured: list[Event] = []

        def after_three(event: Event) -> None:
            if isinstance(event, Progress) and event.item == "sensitivity":
                measured.append(event)
                if len(measured) == 4:
                    stop.set()

        with pytest.raises(Aborted):
            measure(source, errors, [TEXT], tmp_path, CHUNKS, Run(stop, after_three, threads=1), **shape)
        assert measured[-1] == Progress("measuring", "sensitivity", 3, 18, "steps")
        [cache] = tmp_path.iterdir()  # and nothing of a run that was killed
        assert cache.name.startswith("nano-") and cache.suffix == ".json"
        assert len(json.loads(cache.read_text())) == 3
        found = measure(source, errors, [TEXT], tmp_path, CHUNKS, RUN, **shape)

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("measured anew")

        monkeypatch.setattr("runtime.llama.Scorer", refuse)
        assert measure(source, errors, [TEXT], tmp_path, CHUNKS, RUN, **shape) == found
        other = Text("text", TEXT.content + "!")
        with pytest.raises(AssertionError, match="measured anew"):
            measure(source, errors, [other], tmp_path, CHUNKS, RUN, **shape)
        # What belongs to another text, or to other weights of the same name, has a file of its own.
        assert measure(source, errors, [TEXT], tmp_path, CHUNKS, RUN, **shape) == found
    assert len(found.curves) == len(found.groups) == 17
    embedding = found.curves["token_embd.weight"]
    assert embedding.points[0][0] == errors["token_embd.weight"]["Q2_K"]
    assert 1e-4 < embedding.points[0][1] < 10


def test_two_models_of_one_name_do_not_overwrite_each_others_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Same:
        """Stands for the model and for what is compared with it: every file diverges alike."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Same:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def record(self, *_: object, **__: object) -> None:
            pass

        def compare(self, *_: object, **__: object) -> Any:
            return SimpleNamespace(kld=SimpleNamespace(value=0.5))

    monkeypatch.setattr("runtime.llama.Scorer", Same)
    monkeypatch.setattr("quant.to_a_size.sensitivity.Base", Same)
    monkeypatch.setattr("quant.to_a_size.sensitivity.settle_threads", lambda *_: 1)
    for seed in (1, 2, 1):
        path = model(tmp_path / "model.gguf", layers=1, width=256, type="BF16", seed=seed)
        with GgufSource(path, name="x" * 300) as source:
            errors = measure_errors(source, RUN)
            found = measure(source, errors, [TEXT], tmp_path / "cache", CHUNKS, RUN)
            # Rows of 16 fit no coarse type: nothing can be lost, so nothing is measured.
            assert found.loss(errors)["blk.0.attn_output.weight"] == {"BF16": 0.0}
    first, second = sorted((tmp_path / "cache").iterdir())
    assert first.name.startswith("x" * 60 + "-") and len(first.name) == len(second.name) == 82
    figures = json.loads(first.read_text())
    assert figures == json.loads(second.read_text())
    assert not any("attn_output" in name for name in figures)
    assert "fine" in figures and any(name.startswith("attn_q.weight 1/1 Q2_K ") for name in figures)


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with (
        GgufSource(model(tmp_path / "model.gguf", layers=1, width=256), name="nano") as source,
        pytest.raises(DsrError, match=r"/cache/nano-[0-9a-f]{16}\.json: cannot be written: File exists"),
    ):
        measure(source, measure_errors(source, RUN), [TEXT], tmp_path / "cache", CHUNKS, RUN)
