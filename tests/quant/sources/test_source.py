from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from quant.sources.source import GgufSource, TensorSpec
from runtime.base.errors import BadModelFile, NotFound
from tests.gguf_writer import T, V, llama_metadata, llama_tensors, value, write


def test_tensors_and_metadata_are_in_the_files_order(tmp_path: Path) -> None:
    metadata = llama_metadata() | {
        "general.file_type": 1,
        "x.bytes": V("u16", 3),
        "x.flags": V("bool", [True, False], array=True),
        "x.wide": V("f64", 0.5),
        "general.quantization_version": 2,
        "general.alignment": 32,
        "x.text": "größer",
    }
    with GgufSource(write(tmp_path / "a.gguf", metadata, llama_tensors())) as source:
        assert source.architecture == "llama"
        assert source.tensors[0] == TensorSpec("token_embd.weight", (64, 8), "F32")
        assert [tensor.name for tensor in source.tensors] == [tensor.name for tensor in llama_tensors()]
        entries = {entry.key: entry.encoded for entry in source.metadata}
    set_by_the_writer = {"general.file_type", "general.quantization_version", "general.alignment"}
    assert list(entries) == [key for key in metadata if key not in set_by_the_writer]
    assert entries == {key: value(metadata[key]) for key in entries}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_rows_of_every_float_type_are_read(tmp_path: Path, kind: str) -> None:
    values = (np.arange(64 * 8, dtype=np.float32) % 125).reshape(8, 64) / 4
    if kind == "F32":
        data = values.tobytes()
    elif kind == "F16":
        data = values.astype(np.float16).tobytes()
    else:
        data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    tensors = [T("token_embd.weight", (64, 8), kind, data=data), *llama_tensors()[1:]]
    with GgufSource(write(tmp_path / "a.gguf", tensors=tensors)) as source:
        read = source.read(source.tensors[0], 2, 3)
    assert read.dtype == np.float32
    assert np.array_equal(read, values[2:5])


def test_rows_of_a_quantized_type_are_read(tmp_path: Path) -> None:
    blocks = b"".join(np.float16(n).tobytes() + bytes(range(32)) for n in range(1, 17))  # 8 rows of 2 blocks
    tensors = [T("token_embd.weight", (64, 8), "Q8_0", data=blocks), *llama_tensors()[1:]]
    with GgufSource(write(tmp_path / "a.gguf", tensors=tensors)) as source:
        read, stored = source.read(source.tensors[0], 1, 1), source.stored_rows(source.tensors[0], 1, 1)
    assert read.tolist() == [[3 * n for n in range(32)] + [4 * n for n in range(32)]]
    assert stored.tobytes() == blocks[68:136]


def test_the_shards_of_a_split_file_are_one_source(tmp_path: Path) -> None:
    tensors = [
        T(t.name, t.shape, data=np.full(t.size // 4, n, np.float32).tobytes()) for n, t in enumerate(llama_tensors())
    ]
    split = {"split.count": V("u16", 2), "split.tensors.count": V("i32", len(tensors))}
    first, second = tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"
    write(first, llama_metadata() | {"split.no": V("u16", 0)} | split, tensors[:5])
    write(second, {"split.no": V("u16", 1)} | split, tensors[5:])
    with GgufSource(first) as source:
        assert source.files == (first, second)
        assert [float(source.read(tensor, 0, 1)[0, 0]) for tensor in source.tensors] == list(range(len(tensors)))
        assert not any(entry.key.startswith("split.") for entry in source.metadata)


def test_a_file_that_shrinks_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    with GgufSource(path) as source:
        os.truncate(path, path.stat().st_size - 4096)
        with pytest.raises(BadModelFile, match=r"became shorter while blk\.1\.ffn_down\.weight was read"):
            source.read(source.tensors[-1], 0, 64)


def test_no_file_and_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        GgufSource(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(BadModelFile):
        GgufSource(tmp_path / "bad.gguf")
