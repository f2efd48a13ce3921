"""The folder of second moments: what it holds, what is refused, what an interruption leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.round.moments import Moments, Part, begin, read, read_complete, source_digest, text_digest
from quant.sources.source import GgufSource, Source, TensorSpec
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from tests.quant.models import model


class Rows(Source):
    """A source of one matrix of given values."""

    def __init__(self, values: NDArray[np.float32], stored: str = "BF16") -> None:
        super().__init__("llama", [TensorSpec("blk.0.attn_q.weight", values.shape[::-1], stored)])
        self.values = values

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        return self.values[first : first + count]


def moments_in(folder: Path) -> Moments:
    """Moments of two experts, and of a dense matrix; the second expert saw no input."""
    moments = begin(folder, "source", "text", 7, ["notes"])
    experts = np.stack([4 * np.eye(2), np.zeros((2, 2))]).astype(np.float32)
    moments.add(Part("gate.npy", ("gate", "up"), 2, 0, (4, 0)), experts)
    moments.add(Part("q.npy", ("q",), 2, 0, (2,)), np.array([[[2, 1], [1, 4]]], np.float32))
    moments.finish()
    return moments


def test_what_was_written_is_read(tmp_path: Path) -> None:
    moments_in(tmp_path)
    found = read_complete(tmp_path)
    assert found.weights == {"gate", "up", "q"}
    moment = found.of("q", 0)
    assert moment is not None
    # sums by 2 inputs, and of the mean of the diagonal, (1 + 2) / 2, three times 2 columns / 2 inputs
    assert np.allclose(moment.damped, [[5.5, 0.5], [0.5, 6.5]])
    assert found.of("up", 0) is found.of("gate", 0)


def test_an_expert_without_inputs_has_no_moments(tmp_path: Path) -> None:
    found = moments_in(tmp_path)
    assert found.of("gate", 1) is None
    assert found.of("gate", 2) is None
    assert found.of("other", 0) is None


def test_diagonals_are_an_importance(tmp_path: Path) -> None:
    found = moments_in(tmp_path).diagonals()
    assert found["q"][0].tolist() == [[2, 4]]
    assert found["up"][0].tolist() == [[4, 4], [0, 0]]
    assert found["up"][1].tolist() == [4, 0]


def test_experts_that_were_collected_in_turns_are_one_matrix(tmp_path: Path) -> None:
    moments = begin(tmp_path, "source", "text", 7, [])
    moments.add(Part("b.npy", ("gate",), 1, 1, (3,)), np.full((1, 1, 1), 6, np.float32))
    moments.add(Part("a.npy", ("gate",), 1, 0, (2,)), np.full((1, 1, 1), 2, np.float32))
    assert moments.diagonals()["gate"][0].tolist() == [[2], [6]]
    second = moments.of("gate", 1)
    assert second is not None and np.allclose(second.damped, [[4]])


def test_an_interrupted_folder_is_continued_and_not_used(tmp_path: Path) -> None:
    moments = begin(tmp_path, "source", "text", 7, [])
    moments.add(Part("q.npy", ("q",), 1, 0, (1,)), np.ones((1, 1, 1), np.float32))
    with pytest.raises(Incompatible, match="incomplete"):
        read_complete(tmp_path)
    again = begin(tmp_path, "source", "text", 7, [])
    assert [part.file for part in again.index.parts] == ["q.npy"]


def test_moments_of_another_text_are_replaced(tmp_path: Path) -> None:
    moments_in(tmp_path)
    again = begin(tmp_path, "source", "other text", 9, [])
    assert again.index.parts == ()
    assert not (tmp_path / "q.npy").exists()


def test_moments_of_other_weights_are_refused(tmp_path: Path) -> None:
    found = moments_in(tmp_path)
    found.check_source("source")
    with pytest.raises(Incompatible, match="of other weights"):
        found.check_source("another")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": 1}', b'{"schema": 2, "parts": []}', b"\xff"])
def test_a_list_in_another_form_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "moments.json").write_bytes(content)
    with pytest.raises(BadModelFile):
        read(tmp_path)


def test_a_part_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    moments_in(tmp_path)
    index = tmp_path / "moments.json"
    index.write_text(index.read_text().replace("q.npy", "../q.npy"))
    with pytest.raises(BadModelFile, match="no list of moments"):
        read(tmp_path)


def test_a_folder_without_moments_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no moments"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", None])
def test_a_damaged_part_is_told_by_name(tmp_path: Path, content: bytes | None) -> None:
    found = moments_in(tmp_path)
    if content is None:
        np.save(tmp_path / "q.npy", np.zeros((1, 3, 3), np.float32))
    else:
        (tmp_path / "q.npy").write_bytes(content)
    with pytest.raises(BadModelFile, match=r"q\.npy"):
        found.of("q", 0)


def test_the_same_weights_have_one_digest_in_bf16_and_f16() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2) / 8
    digest = source_digest(Rows(values))
    assert source_digest(Rows(values, "F16")) == digest
    changed = values.copy()
    changed[5, 1] += 1
    assert source_digest(Rows(changed)) != digest
    assert source_digest(Rows(values[:5])) != digest


def test_two_models_have_two_digests(tmp_path: Path, nano_path: Path) -> None:
    digests = set()
    for path in (nano_path, model(tmp_path / "other.gguf", layers=2)):
        with GgufSource(path) as source:
            digests.add(source_digest(source))
    assert len(digests) == 2


def test_the_same_tokens_in_other_sequences_are_another_text() -> None:
    assert text_digest([(1, 2), (3,)]) != text_digest([(1,), (2, 3)])
    assert text_digest([(1, 2), (3,)]) == text_digest([[1, 2], [3]])
