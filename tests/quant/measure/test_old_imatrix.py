"""The importance matrix in the format from before GGUF: told by its content, equal in effect, refused when damaged."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.measure.imatrix import Entry, Imatrix, merge, read, write
from quant.open_source import open_source
from quant.recipe import recipe
from quant.sources.source import GgufSource, Source
from quant.write.execute import quantize
from runtime.base.errors import BadModelFile, DsrError
from runtime.base.run import Run
from tests.quant import tiny

CHUNK = 512
NAMES = ("blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight")


def text(raw: bytes) -> bytes:
    return struct.pack("<i", len(raw)) + raw


def old(matrix: Imatrix, tail: bytes | None = None) -> bytes:
    """The bytes that llama-imatrix writes for the same data, with chunks of 512 tokens."""
    out = struct.pack("<i", len(matrix.entries))
    for name, entry in sorted(matrix.entries.items()):
        chunks = -(-int(entry.counts.max()) // CHUNK)
        counts = entry.counts.astype(np.float32)[:, None]
        sums = entry.sums.reshape(counts.size, -1)
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(1))
        values: NDArray[np.float32] = mean.astype(np.float32) * np.float32(chunks)
        out += text(name.encode()) + struct.pack("<ii", chunks, values.size) + values.tobytes()
    return out + (struct.pack("<i", matrix.chunk_count) + text(b"wiki.txt") if tail is None else tail)


def example(sizes: Mapping[str, tuple[int, int]] | None = None) -> Imatrix:
    """Random sums of four chunks; the second of several experts saw no token, the others different numbers."""
    generator = np.random.default_rng(5)
    entries = {}
    for name, (slices, width) in (sizes or {NAMES[0]: (1, 6), NAMES[1]: (3, 4)}).items():
        counts = np.array([2048 - 100 * number if number != 1 else 0 for number in range(slices)])
        sums = generator.random((slices, width), np.float32) * counts[:, None] * 9
        entries[name] = Entry(sums.astype(np.float32), counts)
    return Imatrix(entries, ("wiki.txt",), chunk_count=4, chunk_size=CHUNK)


@pytest.mark.parametrize("name", ["imatrix.dat", "imatrix.gguf", "imatrix"])
def test_the_content_tells_the_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(old(example()))
    matrix = read(path)
    assert (matrix.datasets, matrix.chunk_count, tuple(matrix.entries)) == (("wiki.txt",), 4, NAMES)
    for each in NAMES:
        expected, found = example().importance(each), matrix.importance(each)
        assert expected is not None and found is not None
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("tail", [b"", struct.pack("<i", 4)])
def test_the_tail_may_be_missing_as_in_the_first_files(tmp_path: Path, tail: bytes) -> None:
    (tmp_path / "m").write_bytes(old(example(), tail))
    matrix = read(tmp_path / "m")
    assert (matrix.datasets, matrix.chunk_count) == ((), 4 if tail else 0)


def test_without_chunks_the_values_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.array([0.5, 2.0], np.float32)
    (tmp_path / "m").write_bytes(struct.pack("<i", 1) + text(b"a.weight") + struct.pack("<ii", 0, 2) + values.tobytes())
    found = read(tmp_path / "m").importance("a.weight")
    assert found is not None and found.tolist() == [[0.5, 2.0]]


def test_values_are_rounded_twice_as_in_llama_quantize(tmp_path: Path) -> None:
    """What the file has is the mean times five chunks in float32; a fifth of that is not always the mean again."""
    mean = np.array([0.1, 0.2, 0.3, 0.7], np.float32)
    stored: NDArray[np.float32] = mean * np.float32(5)
    (tmp_path / "m").write_bytes(struct.pack("<i", 1) + text(b"a.weight") + struct.pack("<ii", 5, 4) + stored.tobytes())
    found = read(tmp_path / "m").importance("a.weight")
    assert found is not None and found.dtype == np.float32
    assert found.ravel().tolist() == (stored / np.float32(5)).tolist()
    np.testing.assert_allclose(found.ravel(), mean, rtol=2**-23)


def test_both_formats_of_the_same_data_give_the_same_quantized_bytes(tmp_path: Path) -> None:
    tiny.qwen3_moe(tmp_path / "model")
    chosen = recipe.load("q4_0")
    written: dict[str, bytes] = {}
    with open_source(tmp_path / "model") as source:
        shapes = {tensor.name: (tensor.slices, tensor.row_length) for tensor in source.tensors if tensor.rows > 1}
        matrix = example(shapes)
        write(tmp_path / "new", matrix)
        (tmp_path / "old").write_bytes(old(matrix))
        for name in ("new", "old", "none"):
            weighted: Source = source
            if name != "none":
                found = read(tmp_path / name)
                values = {each: found.importance(each) for each in shapes}
                weighted = source.with_importance({each: one for each, one in values.items() if one is not None})
            out = tmp_path / f"{name}.gguf"
            quantize(weighted, recipe.plan(chosen, weighted), out, Run())
            with GgufSource(out) as made:
                written[name] = b"".join(made.stored_rows(tensor, 0, tensor.rows).tobytes() for tensor in made.tensors)
    assert written["old"] == written["new"] != written["none"]


def test_chunks_become_tokens_when_matrices_are_merged(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(old(example()))
    both = merge([example(), read(tmp_path / "m")])
    entry = both.entries[NAMES[0]]
    assert entry.counts.tolist() == [4096] and both.chunk_count == 8 and not both.counts_chunks
    np.testing.assert_allclose(entry.sums, example().entries[NAMES[0]].sums * 2, rtol=1e-6)


GOOD = old(example())


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (GOOD[:-3], "ends in the middle of the name of the text"),
        (GOOD[:50], "ends in the middle of entry 1 of 2"),
        (GOOD + b"x", "1 bytes after its end"),
        (struct.pack("<i", 9) + GOOD[4:], "entry 3 of 9"),
        (GOOD[:27] + struct.pack("<ii", 4, 2**31 - 1) + GOOD[35:], "ends in the middle of entry 1"),
        (GOOD[:27] + struct.pack("<ii", 4, -1) + GOOD[35:], "has -1 values"),
        (GOOD[:35] + struct.pack("<f", float("nan")) + GOOD[39:], "values that are negative or not finite"),
        (struct.pack("<i", 2) + (text(NAMES[0].encode()) + struct.pack("<iif", 1, 1, 1.0)) * 2, "is there twice"),
        (b"", "an empty file"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, raw: bytes, problem: str) -> None:
    (tmp_path / "m.dat").write_bytes(raw)
    with pytest.raises(BadModelFile) as caught:
        read(tmp_path / "m.dat")
    assert problem in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!doctype html><html></html>", "a web page"),
        (b'{"a": 1}\n', "JSON"),
        (b"once upon a time\n" * 40, "a text"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0", "a Python pickle"),
        ((400).to_bytes(8, "little") + b'{"a": {}}' + bytes(500), "a safetensors file"),
        (b"\0\xff" * 500, "a file of 1000 bytes of another kind"),
    ],
)
def test_other_files_are_named_as_what_they_are(tmp_path: Path, raw: bytes, kind: str) -> None:
    (tmp_path / "m").write_bytes(raw)
    with pytest.raises(BadModelFile) as caught:
        read(tmp_path / "m")
    assert kind in caught.value.message and "not an importance matrix" in caught.value.message


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(GOOD)), replacement=st.binary(max_size=5), cut=st.booleans())
def test_no_damage_does_more_than_raise_our_errors(
    tmp_path_factory: pytest.TempPathFactory, at: int, replacement: bytes, cut: bool
) -> None:
    path = tmp_path_factory.mktemp("old") / "m"
    path.write_bytes(GOOD[:at] + replacement + (b"" if cut else GOOD[at + len(replacement) :]))
    try:
        assert read(path).entries
    except DsrError as error:
        assert "\n" not in error.message
