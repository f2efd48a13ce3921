"""Value heads: names, layers, outputs, and files that are none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from runtime.base.errors import BadModelFile, Incompatible, NotFound, UsageError
from runtime.gguf.reader import read_card
from runtime.strategies.value_head import check_head, read_head
from tests.runtime.strategies.heads import write_head

LINEAR = {"score.weight": [[1.0, -2.0]], "score.bias": [0.5]}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_one_output_goes_through_a_sigmoid(tmp_path: Path) -> None:
    head = read_head(write_head(tmp_path / "h.safetensors", LINEAR))
    assert head.values([(1.0, 1.0), (3.0, 0.0)]) == pytest.approx([sigmoid(-0.5), sigmoid(3.5)])
    assert head.values([]) == []


@pytest.mark.parametrize("stem", ["v_head.summary", "v_head", "value_head", "score", "classifier", "model.score"])
def test_published_names_are_known_and_other_tensors_are_passed_over(tmp_path: Path, stem: str) -> None:
    tensors = {f"{stem}.weight": [[2.0, 0.0]], "model.layers.0.mlp.gate.weight": [[1.0]], "lm_head.weight": [[1.0]]}
    assert read_head(write_head(tmp_path / "h", tensors)).values([(1.0, 9.0)]) == pytest.approx([sigmoid(2.0)])


def test_two_layers_have_a_relu_between_them_and_the_second_of_two_outputs_is_right(tmp_path: Path) -> None:
    tensors = {
        "score.0.weight": [[1.0, 0.0], [0.0, 1.0]],
        "score.0.bias": [0.0, 0.0],
        "score.2.weight": [[0.0, 1.0], [1.0, 0.0]],
        "score.2.bias": [0.0, 0.25],
    }
    # (3, -5) becomes (3, 0), and then the outputs 0 for wrong and 3.25 for right.
    assert read_head(write_head(tmp_path / "h", tensors)).values([(3.0, -5.0)]) == pytest.approx([sigmoid(3.25)])


def test_of_three_outputs_the_metadata_name_the_right_one(tmp_path: Path) -> None:
    tensors = {"classifier.weight": [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]}
    with pytest.raises(Incompatible, match="3 outputs, and which of them means right is not told"):
        read_head(write_head(tmp_path / "h", tensors))
    head = read_head(write_head(tmp_path / "h", tensors, right="2"))
    assert head.values([(1.0, 0.0)]) == pytest.approx([math.e / (2 + math.e)])


def test_half_precision_is_read(tmp_path: Path) -> None:
    head = read_head(write_head(tmp_path / "h", LINEAR, dtype="BF16"))
    assert head.values([(1.0, 1.0)]) == pytest.approx([sigmoid(-0.5)])


def test_a_head_of_another_model_is_refused_with_both_sizes(tmp_path: Path) -> None:
    head = read_head(write_head(tmp_path / "h", LINEAR))
    with pytest.raises(Incompatible, match=r"this head reads hidden states of 2 numbers, and the model's have 3"):
        head.values([(1.0, 2.0, 3.0)])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"lm_head.weight": [[1.0]]}, "this file has no value head"),
        ({**LINEAR, "v_head.weight": [[1.0, 1.0]]}, "this file has 2 heads: score, v_head"),
        ({"score.weight": [1.0, 2.0]}, r"score\.weight is no matrix"),
        ({"score.weight": [[1.0, 2.0]], "score.bias": [1.0, 2.0]}, "with a bias of as many rows"),
        ({"score.0.weight": [[1.0, 2.0]]}, r"score\.2\.weight is no matrix"),
        ({"score.0.weight": [[1.0, 2.0]], "score.2.weight": [[1.0, 2.0]]}, "does not read what the first one gives"),
    ],
)
def test_a_file_without_one_whole_head_is_refused(tmp_path: Path, tensors: dict[str, object], said: str) -> None:
    with pytest.raises(Incompatible, match=said):
        read_head(write_head(tmp_path / "h", tensors))


def test_the_head_of_the_embedded_model_fits_it(nano_path: Path) -> None:
    """After nano was trained with another width: python tests/nano/training/value_head.py"""
    head = read_head(Path(__file__).parents[2] / "nano" / "value_head.safetensors")
    assert head.inputs == read_card(nano_path).embedding_length


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write_head(tmp_path / "h", {"score.weight": [[math.nan, 1.0]]})
    with pytest.raises(BadModelFile, match=r"score\.weight.* not finite"):
        read_head(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadModelFile):
        read_head(path)
    with pytest.raises(NotFound):
        read_head(tmp_path / "nothing")


def test_a_setting_that_names_no_file_is_refused_at_once(tmp_path: Path) -> None:
    check_head("")
    with pytest.raises(UsageError, match="there is no such file"):
        check_head(str(tmp_path / "nothing"))
