"""Collecting second moments: literal sums with made-up graph nodes, then the embedded model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.measure import texts
from quant.measure.calibrate import collect
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.moments import Input, InputFinder, MomentCollector, Share, collect_moments, sequences, turns
from quant.measure.texts import CALIBRATION
from quant.round.moments import read_complete
from runtime.base.errors import Aborted, DoesNotFit, EngineFailed, UsageError
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card
from tests.quant.nodes import FakeNode, weight

ONE = Run(threads=1)
PROBLEMS = Path(texts.__file__).parent / "calibration" / "problems.txt"


def product(matrix: FakeNode, x: FakeNode) -> FakeNode:
    return FakeNode("out", np.zeros((1, 1), np.float32), "MUL_MAT", (matrix, x))


def routed(matrix: FakeNode, x: FakeNode, chosen: FakeNode) -> FakeNode:
    return FakeNode("out", np.zeros((1, 1), np.float32), "MUL_MAT_ID", (matrix, x, chosen))


def share(name: str, columns: int, slices: int = 1, first: int = 0, end: int | None = None) -> Share:
    return Share(Input(columns, slices, [name]), first, slices if end is None else end)


def test_matrices_with_one_input_are_found_together() -> None:
    finder = InputFinder()
    x, y = FakeNode("x", np.zeros((2, 4), np.float32)), FakeNode("y", np.zeros((2, 3), np.float32))
    for node in (
        product(weight("blk.0.attn_q.weight", 5, 4), x),
        product(weight("blk.0.attn_k.weight", 2, 4), x),
        product(weight("blk.0.ffn_down.weight", 4, 3), y),
        product(weight("blk.0.attn_q.weight", 5, 4), y),  # a matrix that is used twice counts once
        product(weight("output.weight", 9, 4), FakeNode("z", np.zeros((2, 4), np.float32))),
        product(weight("token_embd.weight", 9, 4), x),
        product(FakeNode("kq", np.zeros((2, 4), np.float32)), x),
    ):
        assert not finder.wants(node)
    assert [(each.columns, each.slices, each.weights) for each in finder.inputs] == [
        (4, 1, ["blk.0.attn_q.weight", "blk.0.attn_k.weight"]),
        (3, 1, ["blk.0.ffn_down.weight"]),
        (4, 1, ["output.weight"]),
    ]


def test_the_moments_of_a_dense_matrix_are_summed() -> None:
    collector = MomentCollector([share("blk.0.attn_q.weight", 2)])
    node = product(weight("blk.0.attn_q.weight", 3, 2), FakeNode("x", np.array([[1, 2], [3, 4]], np.float32)))
    assert collector.wants(node)
    assert not collector.sees(node)  # the last of its group ends the pass
    collector.sees(node)
    (part, sums), *rest = collector.parts()
    assert not rest
    assert sums.tolist() == [[[20, 28], [28, 40]]]
    assert part.counts == (4,)
    assert part.weights == ("blk.0.attn_q.weight",)


def test_each_expert_has_the_moments_of_its_tokens() -> None:
    matrix = weight("blk.0.ffn_up_exps.weight", 3, 5, 2)
    one_row_each = FakeNode("x", np.array([[[1, 2]], [[3, 4]]], np.float32))
    chosen = FakeNode("ids", np.array([[0, 2], [2, 0]], np.int32))
    collector = MomentCollector([share(matrix.name, 2, 3)])
    collector.sees(routed(matrix, one_row_each, chosen))
    ((part, sums),) = collector.parts()
    assert part.counts == (2, 0, 2)
    assert sums.tolist() == [[[10, 14], [14, 20]], [[0, 0], [0, 0]], [[10, 14], [14, 20]]]
    own_rows = FakeNode("x", np.array([[[1, 0], [0, 2]], [[3, 0], [0, 4]]], np.float32))
    collector = MomentCollector([share(matrix.name, 2, 3, 2, 3)])
    collector.sees(routed(matrix, own_rows, chosen))
    ((part, sums),) = collector.parts()
    assert (part.first, part.counts, sums.tolist()) == (2, (2,), [[[9, 0], [0, 4]]])


def test_each_head_has_the_moments_of_its_rows() -> None:
    x = FakeNode("x", np.array([[[1, 2]], [[3, 4]]], np.float32))
    matrix = weight("blk.0.attn_k_b.weight", 2, 5, 2)
    collector = MomentCollector([share(matrix.name, 2, 2)])
    collector.sees(product(matrix, x))
    ((part, sums),) = collector.parts()
    assert part.counts == (1, 1)
    assert sums.tolist() == [[[1, 2], [2, 4]], [[9, 12], [12, 16]]]


def test_inputs_that_are_not_finite_are_refused() -> None:
    collector = MomentCollector([share("blk.0.attn_q.weight", 2)])
    x = FakeNode("x", np.array([[np.inf, 1]], np.float32))
    collector.sees(product(weight("blk.0.attn_q.weight", 3, 2), x))
    with pytest.raises(EngineFailed, match=r"blk\.0\.attn_q\.weight is not finite"):
        list(collector.parts())


def test_layers_are_collected_in_turns_within_the_memory() -> None:
    dense = [Input(10, 1, [str(number)]) for number in range(3)]  # 400 bytes each
    assert [[each.weight for each in group] for group in turns(dense, 800)] == [["0", "1"], ["2"]]
    experts = [Input(10, 1, ["q"]), Input(10, 5, ["gate"])]
    found = [[(each.weight, each.first, each.end) for each in group] for group in turns(experts, 800)]
    assert found == [[("q", 0, 1), ("gate", 0, 1)], [("gate", 1, 3)], [("gate", 3, 5)]]
    assert [len(group) for group in turns(dense, 1)] == [1, 1, 1]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9)), min_size=1, max_size=8),
    st.integers(1, 5000),
)
def test_each_slice_has_its_turn_once(shapes: list[tuple[int, int]], memory: int) -> None:
    inputs = [Input(columns, slices, [str(number)]) for number, (columns, slices) in enumerate(shapes)]
    groups = list(turns(inputs, memory))
    seen = [(share.weight, each) for group in groups for share in group for each in range(share.first, share.end)]
    assert seen == [(str(number), each) for number, (_, slices) in enumerate(shapes) for each in range(slices)]
    for group in groups:
        size = sum((share.end - share.first) * share.input.slice_bytes for share in group)
        assert size <= memory or (len(group) == 1 and group[0].end - group[0].first == 1)


class Letters:
    """A tokenizer with a token for each letter."""

    first_token = 1

    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]:
        return [1] * add_bos + [ord(letter) for letter in text]


def test_a_conversation_is_a_sequence_of_its_own() -> None:
    texts = [Text("a", "x" * 20), Text("b", "y" * 40), Text("c", "z" * 5)]
    found = sequences(Letters(), texts, 32)
    assert [len(each) for each in found] == [21, 32]  # the rest of the second, 9 tokens, and the third are too short
    assert found[1][:2] == (1, ord("y"))
    assert len(sequences(Letters(), [Text("d", "x" * 500)], 32, 50)) == 2
    several = "x" * 20 + "\x01" + "y" * 30  # the letter 1 is the first token
    assert [(len(each), each[0]) for each in sequences(Letters(), [Text("e", several)], 64)] == [
        (21, 1),
        (31, 1),
    ]
    with pytest.raises(UsageError, match="fewer than 16 tokens"):
        sequences(Letters(), [Text("c", "z")], 32)


def nano_texts(nano_path: Path, count: int) -> list[Text]:
    return list(CALIBRATION.each_for_model(read_card(nano_path))[:count])


def test_the_diagonals_are_the_importance_matrix(nano_path: Path, tmp_path: Path) -> None:
    text = [Text(PROBLEMS.name, PROBLEMS.read_text(encoding="utf-8"))]
    options = ChunkOptions(64, 3)
    moments = collect_moments(nano_path, "nano", text, tmp_path, ONE, context=64, memory=1 << 30, most=192)
    matrix = collect(nano_path, text, options, Run(threads=1))
    found = moments.diagonals()
    assert set(found) - set(matrix.entries) == {"output.weight"}
    assert set(matrix.entries) <= set(found)
    assert moments.index.tokens == 192
    for name, entry in matrix.entries.items():
        sums, counts = found[name]
        assert np.broadcast_to(entry.counts, counts.shape).tolist() == counts.tolist()
        assert np.allclose(sums, entry.sums, rtol=1e-3, atol=1e-3 * entry.sums.max())


def test_little_memory_gives_the_same_moments(nano_path: Path, tmp_path: Path) -> None:
    texts = nano_texts(nano_path, 2)
    whole, parts = (
        collect_moments(nano_path, "nano", texts, tmp_path / str(memory), ONE, context=512, memory=memory)
        for memory in (1 << 30, 3 << 20)
    )
    assert len(parts.index.parts) > len(whole.index.parts)
    ours, theirs = whole.diagonals(), parts.diagonals()
    assert set(ours) == set(theirs)
    for name, (sums, counts) in ours.items():
        assert np.array_equal(sums, theirs[name][0])
        assert np.array_equal(counts, theirs[name][1])


def test_the_number_of_threads_changes_no_moment(nano_path: Path, tmp_path: Path) -> None:
    texts = nano_texts(nano_path, 2)
    one, two = (
        collect_moments(
            nano_path, "nano", texts, tmp_path / str(threads), Run(threads=threads), context=512, memory=1 << 30
        )
        for threads in (1, 2)
    )
    for part in one.index.parts:
        assert (one.folder / part.file).read_bytes() == (two.folder / part.file).read_bytes()


def test_a_stopped_collection_continues(nano_path: Path, tmp_path: Path) -> None:
    texts, stop = nano_texts(nano_path, 2), Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "tokens" and event.done >= event.total / 2:
            stop.set()

    def run(run: Run, folder: Path) -> bytes:
        made = collect_moments(nano_path, "nano", texts, folder, run, context=512, memory=5 << 20)
        return b"".join((folder / part.file).read_bytes() for part in made.index.parts)

    with pytest.raises(Aborted):
        run(Run(stop, listen, threads=1), tmp_path / "one")
    assert list((tmp_path / "one").glob("*.npy"))
    assert run(Run(threads=1), tmp_path / "one") == run(Run(threads=1), tmp_path / "two")
    read_complete(tmp_path / "one")


def test_a_full_disk_is_told_before_the_text_is_read(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(DoesNotFit, match=r"the second moments need 34\.1 MiB, and 1\.00 MiB are free"):
        collect_moments(nano_path, "nano", nano_texts(nano_path, 2), tmp_path, ONE, context=512, memory=1 << 30)
    assert not list(tmp_path.glob("*.npy"))
