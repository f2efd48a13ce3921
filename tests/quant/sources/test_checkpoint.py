"""Reading original weights: what is sound is read exactly, what is not is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.sources.checkpoint import Checkpoint, check_readable, open_checkpoint
from runtime.base.errors import BadModelFile, DsrError, Incompatible, NotFound
from runtime.base.safetensors import read_header
from tests.quant import tiny

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [4, 4]}


def folder_with(path: Path, tensors: dict[str, tiny.Stored], config: dict[str, Any] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config or {}))
    tiny.write_safetensors(path / "model.safetensors", tensors)
    return path


def rows_of(checkpoint: Checkpoint, name: str, first: int, count: int) -> np.ndarray[Any, Any]:
    out = np.full((count, checkpoint.tensors[name].width), np.nan, np.float32)
    checkpoint.read(name, first, count, out)
    return out


def one_line(error: DsrError) -> str:
    assert "\n" not in error.message
    return error.message


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_rows_are_read_exactly(tmp_path: Path, dtype: str) -> None:
    values = np.arange(15, dtype=np.float32).reshape(5, 3) - 7
    checkpoint = open_checkpoint(folder_with(tmp_path, {"a": tiny.stored(values, dtype)}))
    assert checkpoint.tensors["a"].dtype == dtype
    np.testing.assert_array_equal(rows_of(checkpoint, "a", 1, 3), values[1:4])


def test_values_may_lie_at_an_odd_byte(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0]], np.float32)
    checkpoint = open_checkpoint(
        folder_with(tmp_path, {"odd": ("U8", (1,), b"\0"), "weights": tiny.stored(values, "F32")})
    )
    np.testing.assert_array_equal(rows_of(checkpoint, "weights", 0, 1), values)


def test_a_tensor_of_one_dimension_is_a_single_row(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder_with(tmp_path, {"bias": tiny.stored(np.array([1.0, 2.0, 3.0]), "F16")}))
    assert (checkpoint.tensors["bias"].rows, checkpoint.tensors["bias"].width) == (1, 3)
    np.testing.assert_array_equal(rows_of(checkpoint, "bias", 0, 1), [[1, 2, 3]])


def test_tensors_longer_than_a_run_are_read_to_the_end(tmp_path: Path) -> None:
    values = np.arange(200_000, dtype=np.float32).reshape(2, -1)
    checkpoint = open_checkpoint(folder_with(tmp_path, {"long": tiny.stored(values, "F32")}))
    np.testing.assert_array_equal(rows_of(checkpoint, "long", 0, 2), values)


def test_fp8_codes_have_the_values_of_e4m3fn(tmp_path: Path) -> None:
    codes = bytes([0x00, 0x01, 0x07, 0x08, 0x38, 0x7E, 0x80, 0xFE])
    expected = [0.0, 2**-9, 7 * 2**-9, 2**-6, 1.0, 448.0, -0.0, -448.0]
    tensors = {"w": ("F8_E4M3", (2, 4), codes), "w_scale_inv": tiny.stored(np.ones((1, 1)), "F32")}
    checkpoint = open_checkpoint(folder_with(tmp_path, tensors, {"quantization_config": FP8}))
    np.testing.assert_array_equal(rows_of(checkpoint, "w", 0, 2).ravel(), np.array(expected, np.float32))
    assert np.signbit(rows_of(checkpoint, "w", 1, 1)[0, 2])


@pytest.mark.parametrize(("first", "count"), [(0, 10), (3, 1), (3, 6), (8, 2), (4, 4)])
def test_fp8_blocks_are_scaled_one_by_one_also_at_the_edges(tmp_path: Path, first: int, count: int) -> None:
    """10x7 weights in blocks of 4x4: the last blocks are 2 rows high and 3 columns wide."""
    weight, factors = tiny.random_fp8("w", (10, 7), (4, 4))
    ones = tiny.stored(np.ones((3, 2)), "F32")
    plain = open_checkpoint(
        folder_with(tmp_path / "1", {"w": weight, "w_scale_inv": ones}, {"quantization_config": FP8})
    )
    scaled = open_checkpoint(
        folder_with(tmp_path / "2", {"w": weight, "w_scale_inv": factors}, {"quantization_config": FP8})
    )
    expected = rows_of(plain, "w", 0, 10)
    by_block = np.frombuffer(factors[2], np.float32).reshape(3, 2)
    for row in range(10):
        for column in range(7):
            expected[row, column] *= by_block[row // 4, column // 4]
    np.testing.assert_array_equal(rows_of(scaled, "w", first, count), expected[first : first + count])


def test_factors_may_be_in_another_file(tmp_path: Path) -> None:
    weight, factors = tiny.random_fp8("w", (4, 4), (4, 4))
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": FP8}))
    tiny.write_safetensors(tmp_path / "model-00001-of-00002.safetensors", {"w": weight})
    tiny.write_safetensors(tmp_path / "model-00002-of-00002.safetensors", {"w_scale_inv": factors})
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == ["w"]
    assert np.isfinite(rows_of(checkpoint, "w", 0, 4)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_factors_that_are_not_finite_are_refused_when_read(tmp_path: Path, value: float) -> None:
    weight, _ = tiny.random_fp8("w", (8, 4), (4, 4))
    factors = tiny.stored(np.array([[1.0], [value]]), "F32")
    config = {"quantization_config": FP8}
    checkpoint = open_checkpoint(folder_with(tmp_path, {"w": weight, "w_scale_inv": factors}, config))
    rows_of(checkpoint, "w", 0, 4)
    with pytest.raises(BadModelFile) as caught:
        rows_of(checkpoint, "w", 4, 4)
    assert one_line(caught.value).endswith("tensor 'w_scale_inv' holds NaN or infinity")


WEIGHT = ("F8_E4M3", (8, 6), bytes(48))


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"w": WEIGHT}, "the tensor 'w' has no 'w_scale_inv'"),
        (
            {"w": WEIGHT, "w_scale_inv": tiny.stored(np.ones((2, 1)), "F32")},
            "tensor 'w_scale_inv' is 2x1, no factors for 8x6 weights, in blocks of 4x4",
        ),
        ({"w": WEIGHT, "w_scale_inv": ("U8", (2, 2), bytes(4))}, "tensor 'w_scale_inv' is U8 2x2"),
        (
            {"w": tiny.stored(np.ones((2, 2)), "BF16"), "w_scale_inv": tiny.stored(np.ones((1, 1)), "F32")},
            "'w_scale_inv' belongs to no quantized weight",
        ),
    ],
)
def test_factors_that_are_missing_or_do_not_fit_are_refused(
    tmp_path: Path, tensors: dict[str, tiny.Stored], problem: str
) -> None:
    with pytest.raises(BadModelFile) as caught:
        open_checkpoint(folder_with(tmp_path, tensors, {"quantization_config": FP8}))
    assert problem in one_line(caught.value)


def test_fp8_without_a_word_in_the_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"tensor 'w' is FP8, but config\.json has no quantization_config"):
        open_checkpoint(folder_with(tmp_path, {"w": WEIGHT}))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"quant_method": "gptq", "bits": 3}, r"weights quantized by 'gptq \(3 bits\)'"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, r"weights quantized by 'gptq \(marlin\)'"),
        ({"quant_method": "awq", "version": "gemv"}, r"weights quantized by 'awq \(gemv\)'"),
        ({"quant_method": "bitsandbytes"}, "weights quantized by 'bitsandbytes', which dsr cannot read"),
        ({"load_in_4bit": True}, "weights quantized by 'bitsandbytes'"),
        ({"group_size": 64, "bits": 4}, "weights quantized by 'mlx'"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, r"'compressed-tensors \(marlin-24\)'"),
        (
            {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"}},
            r"'compressed-tensors \(sparse-24-bitmask\)'",
        ),
        ({"quant_method": "compressed-tensors", "transform_config": {"a": 1}}, r"'compressed-tensors \(transforms\)'"),
        (FP8 | {"fmt": "e5m2"}, r"weights quantized by 'fp8 \(e5m2\)'"),
        (FP8 | {"weight_block_size": [0, 4]}, "blocks of FP8 weights need two sizes"),
    ],
)
def test_other_kinds_of_quantization_are_refused(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(Incompatible, match=problem):
        open_checkpoint(folder_with(tmp_path, {}, {"quantization_config": settings}))


def test_types_that_are_no_weights_are_refused() -> None:
    from runtime.base.safetensors import StoredTensor

    with pytest.raises(Incompatible, match="tensor 'a' has the type I64; BF16, F16, F32, F8_E4M3 can be read"):
        check_readable(StoredTensor("a", "I64", (1,), Path("x.safetensors"), 0, 8))


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"not json", "its header is not a JSON object"),
        (b"{not json}", "its header is not valid JSON"),
        (b'{"a": "\xff"}', "its header is not valid JSON"),
        (b"{" * 100_000, "its header is not valid JSON"),
        (b'{"a": {}, "a": {}}', "'a' appears twice in its header"),
        ({"a": 1}, "the entry of 'a' is not a JSON object"),
        ({"a": entry(dtype=None)}, "tensor 'a' has no type"),
        ({"a": entry(shape=[-2])}, "the shape of tensor 'a' is not a list of sizes"),
        ({"a": entry(shape=[True])}, "the shape of tensor 'a' is not a list of sizes"),
        ({"a": entry(shape=[2.0])}, "the shape of tensor 'a' is not a list of sizes"),
        ({"a": entry(shape="2")}, "the shape of tensor 'a' is not a list of sizes"),
        ({"a": entry(offsets=[0])}, "the offsets of tensor 'a' are not two numbers"),
        ({"a": entry(offsets=[8, 0])}, "tensor 'a' of type F32 and shape [2] needs 8 bytes, but has -8"),
        ({"a": entry(shape=[3])}, "tensor 'a' of type F32 and shape [3] needs 12 bytes, but has 8"),
        ({"a": entry(shape=[2**62, 2**62])}, "tensor 'a' of type F32 and shape"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, "the tensors 'a' and 'b' overlap"),
        ({"a": entry(), "b": entry(offsets=[12, 20])}, "before tensor 'b' belong to no tensor"),
        ({"a": entry(offsets=[16, 24])}, "ends at byte"),
        ({"a": entry(), "b": entry(offsets=[8, 16])}, "4 bytes behind the last tensor belong to no tensor"),
    ],
)
def test_a_header_that_is_not_sound_is_refused(tmp_path: Path, header: Any, problem: str) -> None:
    path = tmp_path / "model.safetensors"
    tiny.write_raw(path, header, bytes(20))
    with pytest.raises(BadModelFile) as caught:
        read_header(path)
    assert problem in one_line(caught.value)


def test_types_of_later_versions_are_refused(tmp_path: Path) -> None:
    tiny.write_raw(tmp_path / "x", {"a": entry(dtype="F4")}, bytes(8))
    with pytest.raises(Incompatible, match="tensor 'a' has the type 'F4', which is not known here"):
        read_header(tmp_path / "x")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "0 bytes are too few for a safetensors file"),
        (b"\x10\0\0", "3 bytes are too few for a safetensors file"),
        (b"\xff" * 8, "claims a header of 18446744073709551615 bytes, but the file has 8"),
        (b"\x11" + bytes(7) + b"{" + b" " * 15, "claims a header of 17 bytes, but the file has 24"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path, raw: bytes, problem: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(BadModelFile) as caught:
        read_header(path)
    assert problem in one_line(caught.value)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tiny.write_safetensors(path, {"a": tiny.stored(np.ones((2, 3)), "F32"), "b": tiny.stored(np.ones(4), "BF16")})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadModelFile):
            read_header(path)
    path.write_bytes(whole)
    assert [tensor.name for tensor in read_header(path)] == ["a", "b"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_headers_never_do_more_than_raise_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    tiny.write_safetensors(path, {"a": tiny.stored(np.ones((2, 3)), "F32"), "b": tiny.stored(np.ones(4), "BF16")})
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        tensors = read_header(path)
    except DsrError:
        return
    assert all(tensor.end <= len(raw) for tensor in tensors)


def sharded(folder: Path) -> tuple[Path, dict[str, str]]:
    """Two tensors in two files, and the map of an index."""
    (folder / "config.json").write_text("{}")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for tensor, name in names.items():
        tiny.write_safetensors(folder / name, {tensor: tiny.stored(np.ones(2), "F32")})
    return folder / "model.safetensors.index.json", names


def test_shards_are_read_with_or_without_an_index(tmp_path: Path) -> None:
    index, names = sharded(tmp_path)
    assert list(open_checkpoint(tmp_path).tensors) == ["a", "b"]
    index.write_text(json.dumps({"weight_map": names}))
    assert list(open_checkpoint(tmp_path).tensors) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"c": "model-00001-of-00002.safetensors"}, "lacks the tensor 'c', which model.safetensors.index.json says"),
        ({"a": "model-00002-of-00002.safetensors"}, "holds the tensor 'b'"),
        ({"b": "../b.safetensors"}, "has an invalid file name for 'b'"),
        ({"b": "/etc/passwd"}, "has an invalid file name for 'b'"),
        ({"b": "a\\b.safetensors"}, "has an invalid file name for 'b'"),
        ({"b": 7}, "has an invalid file name for 'b'"),
    ],
)
def test_an_index_that_is_not_true_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    index, names = sharded(tmp_path)
    weight_map = names | change
    if problem.startswith("holds"):
        del weight_map["b"]
        weight_map["a"] = names["a"]
        weight_map["x"] = names["b"]
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BadModelFile) as caught:
        open_checkpoint(tmp_path)
    assert problem in one_line(caught.value)


def test_an_index_without_map_is_refused(tmp_path: Path) -> None:
    index, _ = sharded(tmp_path)
    index.write_text("{}")
    with pytest.raises(BadModelFile, match="has no weight_map"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard_is_named(tmp_path: Path, with_index: bool) -> None:
    index, names = sharded(tmp_path)
    if with_index:
        index.write_text(json.dumps({"weight_map": names}))
    (tmp_path / names["b"]).unlink()
    with pytest.raises(NotFound, match=r"1 of 2 weight files is missing: model-00002-of-00002\.safetensors"):
        open_checkpoint(tmp_path)


def test_the_same_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    _, names = sharded(tmp_path)
    tiny.write_safetensors(tmp_path / names["b"], {"a": tiny.stored(np.ones(2), "F32")})
    with pytest.raises(BadModelFile, match=r"tensor 'a' is also in model-00001-of-00002\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(Incompatible, match="a Python pickle, which could run any code and is never loaded"):
        open_checkpoint(tmp_path)


def test_an_index_of_pickles_is_refused(tmp_path: Path) -> None:
    index, _ = sharded(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model.bin"}}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(Incompatible, match="a Python pickle"):
        open_checkpoint(tmp_path)


def test_pickles_beside_safetensors_do_not_matter(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a": tiny.stored(np.ones(2), "F32")})
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert list(open_checkpoint(folder).tensors) == ["a"]


def test_folders_without_a_model_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"there is no config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Incompatible, match="an adapter"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("raw", ["{", "[1]", "[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, raw: str) -> None:
    (tmp_path / "config.json").write_text(raw)
    with pytest.raises(BadModelFile):
        open_checkpoint(tmp_path)


def test_a_config_alone_is_a_checkpoint_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert not open_checkpoint(tmp_path).tensors
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    assert not open_checkpoint(tmp_path, weights=False).tensors


def test_a_model_in_the_hub_cache_is_called_by_its_repository(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--Some-Model-7B" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    assert open_checkpoint(folder_with(folder, {})).name == "Some-Model-7B"
