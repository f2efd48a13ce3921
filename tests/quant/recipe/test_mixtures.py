"""The standard mixtures against the engine's own quantizer: the whole file, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.gguf.writer import layout, u32
from quant.plan import QUANTIZATION_VERSION, fitting_type, imatrix_entries
from quant.recipe.mixtures import MIXTURES, ModelFacts, facts_of, kept_type, mixture, more_bits, quantizable, standard
from quant.sources.source import GgufSource, Importance, Source, TensorSpec
from quant.write.execute import quantize
from runtime.base.errors import UsageError
from runtime.base.run import Run
from tests.quant.engine_quantizer import reference
from tests.quant.models import importance, model

SLOW = {"iq1_s", "iq1_m"}  # ggml makes a table for them in ten seconds: tests/peers/quantize.py looks at these
# The engine refuses these without an importance matrix.
NEED_IMPORTANCE = {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xs", "iq3_xxs"}
# Rows of 32 are quick, and the types that stand in for others still show which rule decided.
NARROW: dict[str, dict[str, Any]] = {
    "dense": {"layers": 32},
    "grouped": {"layers": 8, "heads": 8, "tied": True},
    "mixtral": {"layers": 17, "experts": 8, "heads": 8},
    "four experts": {"layers": 3, "experts": 4},
    "seventy": {"layers": 80, "present": (0, 1, 2, 39, 79), "heads": 8, "kv_heads": 1},
    "qwen2": {"layers": 80, "present": (0, 1, 2, 39, 79), "architecture": "qwen2"},
    "odd rows": {"hidden": 24},
}
# Rows of 256 have the types themselves: those that are as long as the model is wide, and the others.
WIDE: dict[str, dict[str, Any]] = {
    "width": {"layers": 16, "present": (0, 2), "width": 256},
    "hidden": {"layers": 16, "present": (0, 2), "hidden": 256, "heads": 64, "kv_heads": 8},
    "experts": {"layers": 8, "present": (1,), "width": 256, "experts": 8, "heads": 8},
}


class Planned(Source):
    """Tensors to plan with, which nobody reads."""

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        raise AssertionError("a plan reads no weights")


def weighted_by(source: Source, weights: Importance | None) -> Source:
    return source if weights is None else source.with_importance(weights)


def attention(layers: int, row: int) -> Source:
    """A llama with queries only."""
    counts = {"block_count": layers, "attention.head_count": 4, "attention.head_count_kv": 4}
    tensors = [TensorSpec(f"blk.{n}.attn_q.weight", (row, 4), "F16") for n in range(layers)]
    return Planned("llama", tensors, [u32(f"llama.{key}", value) for key, value in counts.items()])


def mixtures(weighted: bool) -> list[str]:
    return [name for name in MIXTURES if weighted or name not in NEED_IMPORTANCE]


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", NARROW)
def test_a_plan_is_the_header_of_the_engines_file(shape: str, weighted: bool, tmp_path: Path) -> None:
    source = model(tmp_path / "model.gguf", **NARROW[shape])
    weights = importance(source) if weighted else None
    for name in mixtures(weighted):
        wanted = reference(source, tmp_path / "wanted.gguf", name, weights).read_bytes()
        with GgufSource(source) as opened:
            plan = standard(name, weighted_by(opened, weights))
        header = layout(plan.metadata, plan.tensors).header
        assert (name, header) == (name, wanted[: len(header)])
        assert (name, plan.bytes) == (name, len(wanted))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", WIDE)
def test_a_mixture_is_the_engines_file(shape: str, weighted: bool, tmp_path: Path) -> None:
    source = model(tmp_path / "model.gguf", **WIDE[shape])
    weights = importance(source) if weighted else None
    for name in set(mixtures(weighted)) - SLOW:
        wanted = reference(source, tmp_path / "wanted.gguf", name, weights).read_bytes()
        ours = tmp_path / f"{name}.gguf"
        with GgufSource(source) as opened:
            given = weighted_by(opened, weights)
            quantize(given, standard(name, given), ours, Run(threads=2))
        assert (name, ours.read_bytes() == wanted) == (name, True)


def test_requantizing_gives_the_engines_file(nano_path: Path, tmp_path: Path) -> None:
    wanted = reference(nano_path, tmp_path / "wanted.gguf", "q4_0")
    with GgufSource(nano_path) as source:
        plan = standard("q4_0", source)
        quantize(source, plan, tmp_path / "ours.gguf", Run(threads=2), allow_requantize=True)
    assert (tmp_path / "ours.gguf").read_bytes() == wanted.read_bytes()
    assert wanted.stat().st_size == plan.bytes


def test_what_the_facts_of_a_model_are(nano_path: Path) -> None:
    with GgufSource(nano_path) as source:
        facts = facts_of(source)
    assert facts == ModelFacts("deepseek2", layers=4, heads=4, kv_heads=1, experts=16)
    assert (facts.grouped, facts.large) == (True, False)


def test_the_middle_of_a_model_gets_more_bits_at_every_third_layer() -> None:
    layers = [layer for layer in range(61) if more_bits(layer, 61)]
    assert layers == [*range(7), *range(9, 53, 3), *range(53, 61)]


@pytest.mark.parametrize(
    ("wanted", "row", "fitting"),
    [
        ("Q4_K", 512, "Q4_K"),
        ("Q4_K", 576, "Q5_0"),
        ("Q5_K", 576, "Q5_1"),
        ("Q6_K", 576, "Q8_0"),
        ("Q2_K", 96, "Q4_0"),
        ("IQ1_S", 96, "IQ4_NL"),
        ("IQ4_XS", 96, "IQ4_NL"),
        ("Q3_K", 24, "F16"),
        ("Q8_0", 24, "F16"),
        ("Q8_0", 32, "Q8_0"),
        ("F32", 3, "F32"),
    ],
)
def test_rows_that_do_not_divide_take_a_type_of_smaller_blocks(wanted: str, row: int, fitting: str) -> None:
    assert fitting_type(wanted, row) == fitting


@pytest.mark.parametrize("name", ["Q4_K_M", "Q8_K", "I32", "Q4_2", ""])
def test_what_is_no_type_for_weights_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a type for weights"):
        fitting_type(name, 256)


@pytest.mark.parametrize(
    ("name", "shape", "stored", "kept"),
    [
        ("blk.0.attn_norm.weight", (64,), "BF16", "F32"),
        ("blk.0.ffn_gate_inp.weight", (64, 8), "BF16", "F32"),
        ("blk.0.exp_probs_b.bias", (8,), "F32", "F32"),
        ("blk.0.shortconv.conv.weight", (64, 8), "F8_E4M3", "F32"),
        ("blk.0.ssm_conv1d.weight", (4, 64), "F16", "F32"),
        ("blk.0.attn_rel_b.weight", (4, 64), "F16", "F16"),
        ("blk.0.ffn_gate_tid2eid.weight", (4, 64), "I32", "I32"),
    ],
)
def test_what_is_not_quantized_keeps_its_type_or_the_one_of_a_conversion(
    name: str, shape: tuple[int, ...], stored: str, kept: str
) -> None:
    tensor = TensorSpec(name, shape, stored)
    assert not quantizable(tensor)
    assert kept_type(tensor) == kept


def test_a_plan_counts_what_did_not_fit_and_what_is_missing() -> None:
    known = {"blk.0.attn_q.weight": np.ones((1, 96), np.float32)}
    plan = standard("q4_k_m", attention(layers=3, row=96).with_importance(known))
    assert [(tensor.target, tensor.wanted, tensor.rule) for tensor in plan.tensors] == [("Q5_0", "Q4_K", "q4_k_m")] * 3
    assert plan.warnings == (
        "the rows of 3 of 3 tensors do not divide into the blocks of the wanted type, so another is taken "
        "(Q4_K to Q5_0: 3)",
        "the importance matrix has no entry for 2 tensors, the first blk.1.attn_q.weight",
    )
    assert not plan.needs_imatrix


def test_a_plan_says_when_it_needs_an_importance_matrix() -> None:
    source, known = attention(layers=1, row=256), {"blk.0.attn_q.weight": np.ones((1, 256), np.float32)}
    assert standard("iq2_xxs", source).needs_imatrix
    assert standard("iq2_xxs", source.with_importance({})).needs_imatrix
    assert not standard("iq2_xxs", source.with_importance(known)).needs_imatrix


def test_a_rule_names_what_it_raised() -> None:
    tensors = [TensorSpec("output.weight", (256, 4), "F16"), TensorSpec("blk.0.attn_v.weight", (256, 4), "F16")]
    plan = standard("q3_k_m", Planned("llama", tensors))
    assert [(tensor.target, tensor.rule) for tensor in plan.tensors] == [
        ("Q6_K", "q3_k_m: output"),
        ("Q5_K", "q3_k_m: attn_v"),
    ]


def test_an_unknown_mixture_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        mixture("q4_k_xl")
    assert caught.value.message == "'q4_k_xl' is no standard mixture"
    assert "q4_k_m" in (caught.value.hint or "")
    assert mixture("Q4_K").name == "q4_k_m"


def test_what_a_file_tells_of_its_importance_matrix() -> None:
    entries = imatrix_entries("a" * 200, ("text.txt", "more.txt"), 5, 3)
    assert [entry.key.rpartition(".")[2] for entry in entries] == ["file", "dataset", "entries_count", "chunks_count"]
    assert entries[0].encoded == b"\x08\0\0\0" + (127).to_bytes(8, "little") + b"a" * 127
    assert entries[1].encoded.endswith(b"text.txt")
    assert np.frombuffer(entries[2].encoded, "<u4").tolist() == [4, 5]


def test_the_numbers_of_file_types_are_those_of_gguf() -> None:
    import gguf

    theirs = {kind.name.removeprefix("ALL_").removeprefix("MOSTLY_").lower(): kind.value for kind in gguf.LlamaFileType}
    assert {name: mixture.file_type for name, mixture in MIXTURES.items()}.items() <= theirs.items()
    assert QUANTIZATION_VERSION == gguf.GGML_QUANT_VERSION
