"""The importance matrix as a file and as numbers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.measure.imatrix import Coverage, Entry, Imatrix, Routing, merge, read, write
from runtime.base.errors import BadModelFile, DsrError, Incompatible, NotFound
from runtime.gguf.reader import read_header
from tests import gguf_writer
from tests.gguf_writer import T, V

EXPERTS = "blk.0.ffn_up_exps.weight"


def entry(sums: list[list[float]], counts: list[int]) -> Entry:
    return Entry(np.array(sums, np.float32), np.array(counts))


def routing(factor: int = 1) -> Routing:
    selected = np.array([3, 0]) * factor
    return Routing(selected, *(np.array([0.5, 0.25]) * factor * step for step in (1, 2, 3, 4)))


def example() -> Imatrix:
    return Imatrix(
        entries={
            "blk.0.attn_k_b.weight": entry([[1, 2], [3, 4]], [10]),
            EXPERTS: entry([[2, 4], [0, 0], [9, 3]], [2, 0, 3]),
        },
        datasets=("a.txt", "größe.txt"),
        chunk_count=7,
        chunk_size=512,
        routing={0: routing()},
        routed_tokens=3584,
    )


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def theirs(path: Path, *tensors: T, **metadata: object) -> Path:
    """A file as llama-imatrix writes it: ggml drops lengths of 1 at the end of a shape."""
    pairs = {
        "general.type": "imatrix",
        "imatrix.datasets": ["wiki.txt"],
        "imatrix.chunk_count": 2,
        "imatrix.chunk_size": 512,
        **metadata,
    }
    path.write_bytes(gguf_writer.gguf({key: value for key, value in pairs.items() if value is not None}, tensors))
    return path


def pair(name: str = EXPERTS, sums: tuple[float, ...] = (2, 4), counts: tuple[float, ...] = (2,)) -> list[T]:
    experts = len(counts)
    return [
        T(f"{name}.in_sum2", (len(sums) // experts, experts), data=floats(*sums)),
        T(f"{name}.counts", (1, experts), data=floats(*counts)),
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", example())
    again = read(tmp_path / "m.gguf")
    assert (again.datasets, again.chunk_count, again.chunk_size) == (("a.txt", "größe.txt"), 7, 512)
    assert list(again.entries) == ["blk.0.attn_k_b.weight", EXPERTS]
    assert again.entries["blk.0.attn_k_b.weight"].sums.tolist() == [[1, 2], [3, 4]]
    assert again.entries["blk.0.attn_k_b.weight"].counts.tolist() == [10]
    assert again.entries[EXPERTS].counts.tolist() == [2, 0, 3]
    assert again.routed_tokens == 3584
    assert {name: values.tolist() for name, values in again.routing[0].items()} == {
        "selected": [3, 0],
        "weight": [0.5, 0.25],
        "probability": [1.0, 0.5],
        "top_logit": [1.5, 0.75],
        "output": [2.0, 1.0],
    }


def test_the_file_is_laid_out_as_llama_imatrix_does(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", example())
    header = read_header(tmp_path / "m.gguf")
    assert [(t.name, t.shape, t.type) for t in header.tensors[:4]] == [
        ("blk.0.attn_k_b.weight.in_sum2", (2, 2), "F32"),
        ("blk.0.attn_k_b.weight.counts", (1, 1), "F32"),
        (EXPERTS + ".in_sum2", (2, 3), "F32"),
        (EXPERTS + ".counts", (1, 3), "F32"),
    ]
    assert header.metadata["general.type"] == "imatrix"
    assert (header.metadata["imatrix.chunk_count"], header.metadata["imatrix.chunk_size"]) == (7, 512)


def test_no_reader_takes_router_statistics_for_an_entry(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", example())
    names = [tensor.name for tensor in read_header(tmp_path / "m.gguf").tensors[4:]]
    assert names == [f"blk.0.router.{x}" for x in ("selected", "weight", "probability", "top_logit", "output")]
    assert not any(name.endswith((".in_sum2", ".counts")) for name in names)


def test_a_file_of_llama_imatrix_is_read(tmp_path: Path) -> None:
    one_dimension = [
        T("blk.0.a.weight.in_sum2", (2,), data=floats(6, 8)),
        T("blk.0.a.weight.counts", (1,), data=floats(4)),
    ]
    found = read(theirs(tmp_path / "m.gguf", *one_dimension, *pair(sums=(2, 4, 9, 3), counts=(2, 3))))
    assert found.entries["blk.0.a.weight"].sums.tolist() == [[6, 8]]
    assert found.entries[EXPERTS].sums.tolist() == [[2, 4], [9, 3]]
    assert found.entries[EXPERTS].counts.tolist() == [2, 3]
    assert (found.datasets, found.chunk_count, found.routing, found.routed_tokens) == (("wiki.txt",), 2, {}, 0)


def test_importance_is_the_float32_quotient() -> None:
    matrix = Imatrix({"a": entry([[1, 2], [10, 16777216]], [3, 7])})
    found = matrix.importance("a")
    assert found is not None and found.dtype == np.float32
    assert found.tolist() == [
        [float(np.float32(1) / np.float32(3)), float(np.float32(2) / np.float32(3))],
        [float(np.float32(10) / np.float32(7)), float(np.float32(16777216) / np.float32(7))],
    ]


def test_one_count_divides_all_slices() -> None:
    found = example().importance("blk.0.attn_k_b.weight")
    assert found is not None
    assert found.tolist() == [[np.float32(0.1), np.float32(0.2)], [np.float32(0.3), np.float32(0.4)]]


def test_an_expert_never_seen_gets_ones_as_in_llama_quantize_or_the_mean_of_its_layer() -> None:
    as_llama, mean = example().importance(EXPERTS), example().importance(EXPERTS, unseen="mean")
    assert as_llama is not None and mean is not None
    assert as_llama.tolist() == [[1, 2], [1, 1], [3, 1]]
    # (2 + 9) / 5 and (4 + 3) / 5: every token counts the same.
    assert mean.tolist() == [[1, 2], [np.float32(2.2), np.float32(1.4)], [3, 1]]


def test_where_nothing_was_seen_there_is_no_mean() -> None:
    found = Imatrix({"a": entry([[0, 0], [0, 0]], [0, 0])}).importance("a", unseen="mean")
    assert found is not None and found.tolist() == [[1, 1], [1, 1]]


def test_a_weight_without_entry_has_no_importance() -> None:
    assert example().importance("token_embd.weight") is None


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2.0**99, width=32)), min_size=1, max_size=8))
def test_importance_is_always_a_finite_number(experts: list[tuple[int, float]]) -> None:
    matrix = Imatrix({"a": entry([[value if count else 0.0] for count, value in experts], [c for c, _ in experts])})
    for unseen in ("one", "mean"):
        found = matrix.importance("a", unseen=unseen)  # type: ignore[arg-type]
        assert found is not None and np.isfinite(found).all() and (found >= 0).all()


def test_merging_adds() -> None:
    both = merge([example(), example()])
    assert both.entries[EXPERTS].sums.tolist() == [[4, 8], [0, 0], [18, 6]]
    assert both.entries[EXPERTS].counts.tolist() == [4, 0, 6]
    assert (both.chunk_count, both.chunk_size, both.routed_tokens) == (14, 512, 7168)
    assert both.datasets == ("a.txt", "größe.txt")
    assert both.routing[0].selected.tolist() == [6, 0]
    assert both.routing[0].output.tolist() == [4.0, 2.0]


def test_merging_does_not_change_what_is_merged() -> None:
    first = example()
    merge([first, example()])
    assert first.entries[EXPERTS].counts.tolist() == [2, 0, 3]


def test_merging_keeps_what_only_one_part_has() -> None:
    other = Imatrix({"b": entry([[5]], [1])}, ("b.txt",), 2, 256)
    both = merge([example(), other])
    assert set(both.entries) == {"blk.0.attn_k_b.weight", EXPERTS, "b"}
    assert both.chunk_count == 8  # 7 * 512 + 2 * 256 tokens in chunks of 512
    assert both.routing[0].selected.tolist() == [3, 0]


def test_a_count_for_all_slices_counts_for_each_in_a_merge() -> None:
    both = merge([Imatrix({"a": entry([[1, 2, 3, 4]], [10])}), Imatrix({"a": entry([[1, 1], [1, 1]], [2, 3])})])
    assert both.entries["a"].sums.tolist() == [[2, 3], [4, 5]]
    assert both.entries["a"].counts.tolist() == [12, 13]


@pytest.mark.parametrize("other", [entry([[1, 2]], [3]), entry([[1, 2], [3, 4], [5, 6]], [1, 1, 1])])
def test_matrices_of_different_models_do_not_merge(other: Entry) -> None:
    with pytest.raises(Incompatible, match="cannot merge: a has"):
        merge([Imatrix({"a": entry([[1, 2], [3, 4]], [1, 1])}), Imatrix({"a": other})])


def test_routers_of_different_models_do_not_merge() -> None:
    other = Imatrix({}, routing={0: Routing.empty(3)})
    with pytest.raises(Incompatible, match="layer 0 has 2 and 3 experts"):
        merge([example(), other])


def test_coverage_is_reported_per_expert() -> None:
    assert example().coverage() == (Coverage(EXPERTS, experts=3, unseen=(1,), least=0, median=2.0),)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ((), "holds no entries"),
        (pair()[:1], f"{EXPERTS} has sums only"),
        (pair()[1:], f"{EXPERTS} has counts only"),
        (pair(sums=(float("nan"), 1)), "values that are negative or not finite"),
        (pair(sums=(float("inf"), 1)), "values that are negative or not finite"),
        (pair(sums=(-1, 1)), "values that are negative or not finite"),
        (pair(counts=(-2,)), "values that are negative or not finite"),
        ([T("a.in_sum2", (3,), data=floats(1, 2, 3)), T("a.counts", (1, 2), data=floats(1, 1))], "3 sums for 2 counts"),
        ([*pair(), T("blk.0.router.selected", (4,))], "router statistics of layer 0 are incomplete"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, tensors: list[T], problem: str) -> None:
    with pytest.raises(BadModelFile, match=problem):
        read(theirs(tmp_path / "m.gguf", *tensors))


@pytest.mark.parametrize("missing", ["imatrix.chunk_count", "imatrix.chunk_size"])
def test_a_file_without_its_chunks_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(BadModelFile, match=f"{missing} is missing"):
        read(theirs(tmp_path / "m.gguf", *pair(), **{missing: None}))


def test_a_count_of_chunks_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"imatrix\.chunk_count"):
        read(theirs(tmp_path / "m.gguf", *pair(), **{"imatrix.chunk_count": V("i32", -1)}))


def test_a_model_is_no_importance_matrix(nano_path: Path) -> None:
    with pytest.raises(Incompatible, match="not an importance matrix"):
        read(nano_path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", example())
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[:-40])
    with pytest.raises(BadModelFile, match="cut short"):
        read(tmp_path / "m.gguf")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.gguf: no such file"):
        read(tmp_path / "none.gguf")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DsrError, match="No space left on device") as raised:
        write(tmp_path / "m.gguf", example())
    assert raised.value.exit_code == 5
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("m.gguf", b"old")]
