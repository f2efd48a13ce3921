"""Quantized weights are read as the floats that their format means, in any part, and hostile ones are refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.sources.checkpoint import Checkpoint, open_checkpoint
from quant.sources.stored_quantization import stored_scheme
from runtime.base.errors import BadModelFile, DsrError, Incompatible
from runtime.gguf.types import BY_NAME
from runtime.llama import dequantize_rows
from tests.quant import packed, tiny
from tests.quant.digests import digest
from tests.quant.packed import FORMS, Array, codes_of, save

REFERENCE = json.loads(Path(packed.__file__).with_name("packed_reference.json").read_text())
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
MXFP4 = {"quant_method": "mxfp4"}
NVFP4_PACKED = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}


def rows_of(checkpoint: Checkpoint, name: str, first: int = 0, count: int | None = None) -> Array:
    tensor = checkpoint.tensors[name]
    out = np.full((tensor.rows - first if count is None else count, tensor.width), np.nan, np.float32)
    checkpoint.read(name, first, len(out), out)
    return out


@pytest.mark.parametrize("name", FORMS)
def test_floats_are_those_of_the_reference_converter(tmp_path: Path, name: str) -> None:
    checkpoint = open_checkpoint(save(tmp_path, *FORMS[name]()))
    found = {
        each: [list(tensor.shape), digest(rows_of(checkpoint, each).tobytes())]
        for each, tensor in checkpoint.tensors.items()
        if each != "norm"
    }
    assert found == REFERENCE[name]
    assert set(checkpoint.tensors) == {*found, "norm"}  # nothing beside is left over


OTHERS = {
    "awq": (AWQ, packed.awq("a", 40, 64, 32)),
    "nvfp4": (MODELOPT, packed.nvfp4("a", 6, 64)),
    "mxfp4": (MXFP4, packed.gpt_oss("experts.down_proj", 3, 5, 96)),
}


@pytest.mark.parametrize("name", [*FORMS, *OTHERS])
def test_any_part_of_the_rows_is_read_alike(tmp_path: Path, name: str) -> None:
    checkpoint = open_checkpoint(save(tmp_path, *(OTHERS[name] if name in OTHERS else FORMS[name]())))
    for each, tensor in checkpoint.tensors.items():
        whole = rows_of(checkpoint, each)
        for first, count in ((0, 1), (tensor.rows - 1, 1), (1, tensor.rows - 1), (tensor.rows // 3, tensor.rows // 2)):
            if count > 0:
                np.testing.assert_array_equal(rows_of(checkpoint, each, first, count), whole[first : first + count])


def test_awq_weights_are_codes_less_zero_points_times_factors(tmp_path: Path) -> None:
    """dequantize_gemm of AutoAWQ, spelled out: a nibble's place within eight columns is 0, 2, 4, 6, 1, 3, 5, 7."""
    checkpoint = open_checkpoint(save(tmp_path, *OTHERS["awq"]))
    codes, zeros = codes_of("a", (64, 40), 4), codes_of("a zeros", (2, 40), 4)
    scales = np.frombuffer(OTHERS["awq"][1]["a.scales"][2], np.float16).reshape(2, 40).astype(np.float32)
    expected = (codes - np.repeat(zeros, 32, axis=0)) * np.repeat(scales, 32, axis=0)
    assert checkpoint.tensors["a.weight"].dtype == "INT4"
    np.testing.assert_array_equal(rows_of(checkpoint, "a.weight"), expected.T.astype(np.float32))


def test_mxfp4_is_copied_bit_for_bit_into_blocks_that_the_engine_reads_alike(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(tmp_path, *OTHERS["mxfp4"]))
    name = "experts.down_proj_blocks"
    assert (checkpoint.tensors[name].dtype, checkpoint.tensors[name].shape) == ("MXFP4", (3, 5, 96))
    stored = checkpoint.stored_rows(name, 2, 9)
    assert stored.shape == (9, 3 * 17)
    np.testing.assert_array_equal(dequantize_rows(BY_NAME["MXFP4"].number, stored), rows_of(checkpoint, name, 2, 9))


def test_nvfp4_has_the_engines_blocks_times_one_factor(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(tmp_path, *OTHERS["nvfp4"]))
    blocks = dequantize_rows(BY_NAME["NVFP4"].number, checkpoint.stored_rows("a.weight", 0, 6))
    np.testing.assert_array_equal(rows_of(checkpoint, "a.weight"), blocks * np.float32(0.0123))
    assert set(checkpoint.tensors) == {"a.weight", "norm"}


def test_compressed_tensors_divides_by_the_factor_of_a_whole_nvfp4_matrix(tmp_path: Path) -> None:
    plain = packed.nvfp4("a", 6, 64)
    renamed = {
        "a.weight_packed": plain["a.weight"],
        "a.weight_scale": plain["a.weight_scale"],
        "a.weight_global_scale": tiny.stored(np.array([4.0]), "F32"),
        "a.input_global_scale": tiny.stored(np.array([2.0]), "F32"),
    }
    checkpoint = open_checkpoint(save(tmp_path, NVFP4_PACKED, renamed))
    blocks = dequantize_rows(BY_NAME["NVFP4"].number, checkpoint.stored_rows("a.weight", 0, 6))
    np.testing.assert_array_equal(rows_of(checkpoint, "a.weight"), blocks / np.float32(4))


def test_tensors_that_are_put_together_come_behind_the_others_and_fp4_before(tmp_path: Path) -> None:
    """The order of llama.cpp's converter decides the order of the file."""
    folder = save(tmp_path / "gptq", *FORMS["gptq"]())
    assert list(open_checkpoint(folder).tensors) == ["norm", "a.weight"]
    folder = save(tmp_path / "mxfp4", MXFP4, {"a.bias": tiny.stored(np.ones(4), "BF16"), **OTHERS["mxfp4"][1]})
    assert next(iter(open_checkpoint(folder).tensors)) == "experts.down_proj_blocks"


def changed(name: str, **change: tiny.Stored | None) -> tuple[dict[str, Any], dict[str, tiny.Stored]]:
    """A form with stored tensors replaced or left out; "__" stands for "."."""
    scheme, tensors = OTHERS[name] if name in OTHERS else FORMS[name]()
    news = {**tensors, **{key.replace("__", "."): value for key, value in change.items()}}
    return scheme, {key: value for key, value in news.items() if value is not None}


def zeros(kind: str, *shape: int) -> tiny.Stored:
    size = {"I32": 4, "I64": 8, "F16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1, "F32": 4}[kind]
    return kind, shape, bytes(int(np.prod(shape)) * size)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("gptq", {"a__scales": None}, "the tensor 'a.qweight' has no 'a.scales'"),
        ("gptq", {"a__qzeros": zeros("I32", 2, 4)}, "'a.qweight' is 8x24 with zero points 2x4 and factors 2x24"),
        ("gptq", {"a__g_idx": zeros("I32", 63)}, "tensor 'a.g_idx' is I32 63; 'a.qweight' needs I32 or I64 64"),
        ("gptq", {"a__qweight": zeros("I32", 0, 24)}, "the quantized tensor 'a.qweight' is 0x24, not a matrix"),
        ("gptq", {"a__weight": zeros("F16", 24, 64)}, "has 'a.weight' in two forms"),
        ("awq", {"a__qzeros": zeros("I32", 3, 5)}, "'a.qweight' is 64x5 with zero points 3x5 and factors 2x40"),
        ("packed_4", {"a__weight_shape": zeros("I64", 2)}, "which cannot hold 0x0 integers of 4 bits in groups of 32"),
        (
            "packed_4",
            {"a__weight_shape": packed.raw(np.array([2**60, 2**60]))},
            "which cannot hold 1152921504606846976x1152921504606846976 integers",
        ),
        ("packed_4", {"a__weight_shape": zeros("I64", 3)}, "'a.weight_shape' is I64 3; 'a.weight_packed' needs I64"),
        ("packed_4", {"a__weight_scale": zeros("F16", 24, 3)}, "with factors 24x3, which cannot hold 24x64"),
        ("packed_4", {"a__weight_zero_point": zeros("I32", 24, 2)}, "'a.weight_zero_point' is I32 24x2;"),
        ("fp8_channel", {"a__weight_scale": zeros("F16", 19, 1)}, "'a.weight_scale' is 19x1, no factors for 20x40"),
        (
            "fp8_channel",
            {"a__weight_scale": zeros("I32", 20, 1)},
            "'a.weight_scale' is I32 20x1; 'a.weight' needs BF16",
        ),
        ("fp8_channel", {"a__weight": None}, "'a.weight_scale' belongs to no quantized weight"),
        ("int8", {"a__weight_zero_point": zeros("I8", 20)}, "'a.weight_zero_point' is I8 20; 'a.weight' needs I8 20x1"),
        ("mxfp4", {"experts__down_proj_blocks": zeros("U8", 3, 5, 3, 8)}, "has blocks of 8 bytes, not 16"),
        ("mxfp4", {"experts__down_proj_scales": zeros("U8", 3, 5, 2)}, "'experts.down_proj_scales' is U8 3x5x2;"),
        ("nvfp4", {"a__weight_scale": zeros("F8_E4M3", 6, 3)}, "'a.weight_scale' is 6x3, not one for each 16 of 6x32"),
        ("nvfp4", {"a__weight_scale_2": zeros("F32", 2)}, "'a.weight_scale_2' is 2, not a number"),
    ],
)
def test_parts_that_are_missing_or_do_not_fit_are_refused(
    tmp_path: Path, name: str, change: dict[str, tiny.Stored | None], problem: str
) -> None:
    with pytest.raises(BadModelFile) as caught:
        open_checkpoint(save(tmp_path, *changed(name, **change)))
    assert problem in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("gptq", {"a__g_idx": packed.raw(np.full(64, 2, np.int32))}, "'a.g_idx' has groups beyond the 2 there are"),
        ("gptq", {"a__g_idx": packed.raw(np.full(64, -1, np.int32))}, "'a.g_idx' has groups beyond"),
        ("gptq", {"a__scales": tiny.stored(np.full((2, 24), np.inf), "F16")}, "'a.scales' holds NaN or infinity"),
        ("packed_4", {"a__weight_scale": tiny.stored(np.full((24, 2), np.nan), "BF16")}, "holds NaN or infinity"),
        ("nvfp4", {"a__weight_scale_2": tiny.stored(np.array(np.inf), "F32")}, "'a.weight_scale_2' holds NaN"),
        ("mxfp4", {"experts__down_proj_scales": packed.raw(np.full((3, 5, 3), 255, np.uint8))}, "holds NaN"),
    ],
)
def test_numbers_that_are_none_are_refused_when_they_are_read(
    tmp_path: Path, name: str, change: dict[str, tiny.Stored], problem: str
) -> None:
    checkpoint = open_checkpoint(save(tmp_path, *changed(name, **change)))
    (weight,) = (each for each in checkpoint.tensors if each != "norm")
    with pytest.raises(BadModelFile, match=problem):
        rows_of(checkpoint, weight)


@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from([2, 4, 8]), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_what_was_packed_is_unpacked(
    tmp_path_factory: pytest.TempPathFactory, height: int, groups: int, bits: int, zero_points: bool, seed: int
) -> None:
    """Integers times a factor of 1, in each of the layouts, are the integers."""
    folder, width, name = tmp_path_factory.mktemp("packed"), 32 * groups, f"w{seed}"
    codes, ones = codes_of(name, (height, width), bits), tiny.stored(np.ones((height, groups)), "F32")
    tensors = packed.packed(name, height, width, bits, 32, zeros=zero_points) | {f"{name}.weight_scale": ones}
    weights = {"num_bits": bits, "group_size": 32}
    scheme = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    scheme |= {"config_groups": {"group_0": {"weights": weights}}}
    checkpoint = open_checkpoint(save(folder, scheme, tensors))
    zero = codes_of(name + " zeros", (groups, height), bits).T if zero_points else np.full((height, 1), 1 << (bits - 1))
    expected = codes - (np.repeat(zero, 32, axis=1) if zero_points else zero)
    np.testing.assert_array_equal(rows_of(checkpoint, f"{name}.weight"), expected.astype(np.float32))


NAMES = ("qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_shape", "weight", "w_blocks")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_set_of_tensors_does_more_than_raise_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = st.lists(st.integers(0, 9), max_size=3)
    kinds = st.sampled_from(["I32", "I64", "F16", "U8", "I8", "F8_E4M3"])
    drawn = data.draw(st.dictionaries(st.sampled_from(NAMES), st.tuples(kinds, shape), max_size=5))
    scheme = data.draw(st.sampled_from([AWQ, MODELOPT, MXFP4, NVFP4_PACKED, *(make()[0] for make in FORMS.values())]))
    tensors = {f"a.{name}": zeros(kind, *sizes) for name, (kind, sizes) in drawn.items()}
    folder = save(tmp_path_factory.mktemp("odd"), scheme, tensors)
    try:
        checkpoint = open_checkpoint(folder)
        for name, tensor in checkpoint.tensors.items():
            if name in checkpoint.forms and tensor.rows:
                rows_of(checkpoint, name)
    except DsrError as error:
        assert "\n" not in error.message


def test_a_quantization_beside_the_configuration_is_found(tmp_path: Path) -> None:
    """AutoGPTQ, AutoAWQ and ModelOpt wrote files of their own, and left config.json as it was."""
    save(tmp_path, {}, FORMS["gptq"]()[1])
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "quantize_config.json").write_text('{"bits": 4, "group_size": 32, "desc_act": false}')
    assert digest(rows_of(open_checkpoint(tmp_path), "a.weight").tobytes()) == REFERENCE["gptq"]["a.weight"][1]
    (tmp_path / "quantize_config.json").write_text('{"bits": 3}')
    with pytest.raises(Incompatible, match=r"gptq \(3 bits\)"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("settings_", "promised"),
    [
        (FORMS["gptq"]()[0], "INT4"),
        (AWQ, "INT4"),
        (MXFP4, "MXFP4"),
        (MODELOPT, "E2M1"),
        (FORMS["int8"]()[0], "INT8"),
        (FORMS["fp8_block"]()[0], "F8_E4M3"),
    ],
)
def test_a_configuration_alone_promises_a_type(settings_: dict[str, Any], promised: str) -> None:
    scheme = stored_scheme({"text_config": {"quantization_config": settings_}}, Path("config.json"))
    assert scheme is not None and scheme.promised == promised


def test_factors_that_overflow_give_infinite_weights_without_a_warning(tmp_path: Path) -> None:
    """Quantizing refuses weights that are not finite, with their name."""
    settings_, tensors = FORMS["fp8_block"]()
    kind, shape, raw = tensors["a.weight_scale_inv"]
    huge = np.full(len(raw) // 4, 3e38, np.float32).tobytes()
    folder = save(tmp_path / "m", settings_, tensors | {"a.weight_scale_inv": (kind, shape, huge)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(rows_of(open_checkpoint(folder), "a.weight")).any()
