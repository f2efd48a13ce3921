from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.gguf.writer import (
    ALIGNMENT,
    KeyValue,
    divide,
    f32,
    i32s,
    integers,
    layout,
    shard_paths,
    split_entries,
    tensor_bytes,
    text,
    u32,
)
from runtime.base.errors import UsageError
from runtime.gguf.reader import parse_header
from runtime.gguf.values import SCALARS


def tensor(name: str, shape: tuple[int, ...], target: str = "F32") -> Any:
    return SimpleNamespace(name=name, shape=shape, target=target)


def test_a_header_byte_by_byte() -> None:
    made = layout([u32("a", 7)], [tensor("t", (2, 3)), tensor("u", (1,))])
    body = b"GGUF" + struct.pack("<IQQ", 3, 2, 1)
    body += struct.pack("<Q", 1) + b"a" + struct.pack("<II", 4, 7)
    body += struct.pack("<Q", 1) + b"t" + struct.pack("<IQQIQ", 2, 2, 3, 0, 0)
    body += struct.pack("<Q", 1) + b"u" + struct.pack("<IQIQ", 1, 1, 0, 32)
    assert made.header == body + bytes(-len(body) % 32)
    assert made.offsets == (len(made.header), len(made.header) + 32)
    assert made.size == len(made.header) + 64


def test_what_is_written_is_read() -> None:
    tensors = [tensor("blk.0.a", (64, 3), "Q8_0"), tensor("blk.0.b", (256, 2, 2), "IQ1_S"), tensor("c", (5,))]
    made = layout([text("general.architecture", "llama"), i32s("x", [1, -2])], tensors)
    header = parse_header(made.header, made.size, Path("made.gguf"))
    assert [(each.name, each.shape, each.type) for each in header.tensors] == [
        ("blk.0.a", (64, 3), "Q8_0"),
        ("blk.0.b", (256, 2, 2), "IQ1_S"),
        ("c", (5,), "F32"),
    ]
    assert tuple(each.offset for each in header.tensors) == made.offsets
    assert header.file_size == made.size == header.data_offset + 224 + 224 + 32


def test_a_file_without_tensors_is_its_header() -> None:
    made = layout([u32("a", 1)], [])
    assert (made.size, made.offsets) == (len(made.header), ())


def test_rows_that_do_not_divide_into_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="rows of 100 weights do not divide into the blocks of 32 of Q8_0"):
        tensor_bytes("Q8_0", (100, 2))


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        (u32("a", 7), (7,)),
        (i32s("a", [3, -1]), (3, -1)),
        (KeyValue("a", struct.pack("<IQ", 10, 2**40)), (2**40,)),
        (f32("a", 1.0), ()),
        (text("a", "7"), ()),
    ],
)
def test_integers_of_an_entry(entry: KeyValue, values: tuple[int, ...]) -> None:
    assert integers(entry) == values


def test_files_are_filled_in_order_and_a_large_tensor_has_its_own() -> None:
    tensors = [tensor(str(n), (elements,)) for n, elements in enumerate([8, 8, 8, 100, 8])]
    assert divide(tensors, 64) == ((0, 2), (2, 3), (3, 4), (4, 5))
    assert divide(tensors, 10**6) == ((0, 5),)
    with pytest.raises(UsageError, match="at least one byte"):
        divide(tensors, 0)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 4000))
def test_dividing_loses_no_tensor_and_keeps_to_the_size(sizes: list[int], largest: int) -> None:
    tensors = [tensor(str(n), (size,)) for n, size in enumerate(sizes)]
    ranges = divide(tensors, largest)
    assert [n for first, end in ranges for n in range(first, end)] == list(range(len(sizes)))
    for first, end in ranges:
        padded = sum(-(-4 * size // 32) * 32 for size in sizes[first:end])
        assert end > first
        assert padded <= largest or end == first + 1


def test_how_split_files_are_named_and_marked() -> None:
    assert [path.name for path in shard_paths(Path("folder/model.gguf"), 2)] == [
        "model-00001-of-00002.gguf",
        "model-00002-of-00002.gguf",
    ]
    assert [(entry.key, entry.encoded) for entry in split_entries(1, 3, 70)] == [
        ("split.no", struct.pack("<IH", 2, 1)),
        ("split.tensors.count", struct.pack("<Ii", 5, 70)),
        ("split.count", struct.pack("<IH", 2, 3)),
    ]


def test_our_numbers_of_value_types_are_those_of_gguf() -> None:
    """They are repeated here because the header of a file is read without gguf, whose import takes 0.4 s."""
    import gguf

    names = {"bool": "BOOL", "u": "UINT", "i": "INT", "f": "FLOAT"}
    ours = {names.get(name) or names[name[0]] + name[1:]: number for number, (name, _) in SCALARS.items()}
    theirs = {kind.name: kind.value for kind in gguf.GGUFValueType}
    assert ours | {"STRING": 8, "ARRAY": 9} == theirs
    assert [entry.encoded[0] for entry in (u32("a", 1), f32("a", 1.0), text("a", "b"), i32s("a", [1]))] == [4, 6, 8, 9]
    assert ALIGNMENT == gguf.GGUF_DEFAULT_ALIGNMENT
