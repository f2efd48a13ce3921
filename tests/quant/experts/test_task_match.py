"""Which task a question belongs to, by made-up keys and by the embedded model's first router; and the router probe."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dsr.suites import suites
from quant.convert.conversion import source_of
from quant.experts.task_match import MIN_CERTAINTY, MIN_QUESTIONS, Match, RouterProbe, _first, match_task, question_key
from quant.gguf import writer
from quant.gguf.writer import KeyValue, i32s
from quant.measure.routers import RouterReader, open_router_reader
from quant.recipe.recipe import load, plan
from quant.sources.checkpoint import open_checkpoint
from quant.sources.source import GgufSource
from quant.write.execute import quantize
from runtime.base.errors import Incompatible
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from tests.nextn import with_mtp
from tests.quant import tiny
from tests.quant.models import model

# Of the embedded model's chat template.
BEFORE, AFTER = "<｜begin▁of▁sentence｜><｜User｜>", "<｜Assistant｜><think>\n"
UNRELATED = (
    "What is the capital of France?",
    "Write a poem about the sea.",
    "Write a Python function that sorts a list.",
    "Translate 'good morning' into German.",
    "Explain quantum entanglement to a child.",
    "Give me a recipe for pancakes.",
    "SELECT name FROM users WHERE age > 30; explain this query",
    "Who was the first person on the moon?",
)


def keys(*rows: tuple[float, float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 2)


LINE = keys((0, 0), (1, 0), (2, 0))  # a question may lie 1.5 from one of these
FAR = keys((20, 0), (20, 3), (20, 6))  # and 4.5 from one of these


def test_a_key_is_the_mean_and_the_spread_of_the_logits() -> None:
    np.testing.assert_array_equal(
        question_key(np.array([[1, 3], [3, 7]], np.float32)), np.array([2, 5, 1, 2], np.float32)
    )


def test_the_nearest_question_decides() -> None:
    found = match_task(np.array([2, 0.1], np.float32), {"far": FAR, "line": LINE})
    assert found.task == "line" and [task for task, _ in found.ranking] == ["line", "far"]
    assert found.certainty == pytest.approx(0.994, abs=0.001)
    assert match_task(np.array([20, 2], np.float32), {"far": FAR, "line": LINE}).task == "far"


def test_at_the_limit_of_a_task_a_question_is_as_likely_foreign() -> None:
    assert match_task(np.array([0, 1.5], np.float32), {"line": LINE}).certainty == MIN_CERTAINTY
    assert match_task(np.array([0, 1.49], np.float32), {"line": LINE}).task == "line"
    assert match_task(np.array([0, 1.51], np.float32), {"line": LINE}).task is None
    assert match_task(np.array([9, 9], np.float32), {"line": LINE, "far": FAR}).task is None


def test_between_two_tasks_a_question_matches_neither() -> None:
    found = match_task(np.array([0, 0.6], np.float32), {"line": LINE, "above": LINE + keys((0, 1.2))})
    assert found.task is None
    assert [certainty for _, certainty in found.ranking] == pytest.approx([0.497, 0.497], abs=0.001)


def test_a_task_needs_questions_that_differ() -> None:
    nothing = Match(None, 0.0, ())
    assert match_task(LINE[0], {}) == nothing
    assert match_task(LINE[0], {"two": LINE[:2], "same": keys(*[(1.0, 1.0)] * 5), "none": LINE[:0]}) == nothing
    assert MIN_QUESTIONS == 3 and match_task(LINE[0], {"three": LINE, "two": LINE[:2]}).task == "three"


NUMBERS = st.floats(-1e6, 1e6, width=32)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6).map(lambda rows: keys(*rows))


@given(st.tuples(NUMBERS, NUMBERS), st.dictionaries(st.sampled_from("abcd"), ROWS))
def test_certainties_are_shares_and_the_first_is_the_largest(
    query: tuple[float, float], tasks: dict[str, NDArray[np.float32]]
) -> None:
    found = match_task(np.array(query, np.float32), tasks)
    shares = [certainty for _, certainty in found.ranking]
    assert shares == sorted(shares, reverse=True) and all(0 <= share <= 1 for share in shares) and sum(shares) < 1.001
    assert found.certainty == (shares[0] if shares else 0)
    assert found.task == (found.ranking[0][0] if found.certainty >= MIN_CERTAINTY else None)


@pytest.fixture(scope="module")
def probe(nano_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterReader]:
    out = tmp_path_factory.mktemp("probe") / "probe.gguf"
    with GgufSource(nano_path) as model:
        source = RouterProbe(model)
        quantize(source, source.file_plan(), out, Run(threads=1))
    with open_router_reader(out, 512, Run()) as reader:
        yield reader


def test_nineteen_of_twenty_questions_of_the_embedded_model_find_their_task(probe: RouterReader) -> None:
    def known(question: str) -> NDArray[np.float32]:
        return question_key(probe.first_logits(probe.model.tokenize(BEFORE + question + AFTER)))

    stored: dict[str, list[NDArray[np.float32]]] = {}
    for problem in suites.find("nano-profile").problems:
        stored.setdefault(problem.task, []).append(known(problem.question))
    tasks = {task: np.stack(rows) for task, rows in stored.items()}
    asked = suites.find("nano").problems[::4]
    right = sum(match_task(known(problem.question), tasks).task == problem.task for problem in asked)
    assert right >= 0.95 * len(asked)
    assert [question for question in UNRELATED if match_task(known(question), tasks).task is not None] == []


TOKENS = [9, 250, 17, 101, 44, 180, 12, 77, 203, 5, 66, 31]


def made(source: Path, out: Path) -> Path:
    with GgufSource(source) as whole:
        probe = RouterProbe(whole)
        file = probe.file_plan()
        quantize(probe, file, out, Run(threads=1))
    assert out.stat().st_size == file.bytes
    return out


def test_the_first_router_says_the_same_in_a_fifth_of_the_bytes(nano_path: Path, tmp_path: Path) -> None:
    out = made(nano_path, tmp_path / "probe.gguf")
    assert out.stat().st_size < nano_path.stat().st_size / 5
    said = []
    for path in (nano_path, out):
        with open_router_reader(path, 64, Run()) as reader:
            said.append(reader.first_logits(TOKENS))
    assert said[0].shape == (len(TOKENS), 16)
    np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("make", [tiny.qwen3_moe, tiny.mixtral, tiny.deepseek_v3])
def test_probes_of_other_architectures(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "checkpoint")
    source = source_of(open_checkpoint(tmp_path / "checkpoint"))
    [whole] = quantize(source, plan(load("f16"), source), tmp_path / "whole.gguf", Run(threads=1))
    said = []
    for path in (whole, made(whole, tmp_path / "probe.gguf")):
        with open_router_reader(path, 64, Run()) as reader:
            said.append(reader.first_logits(TOKENS))
    np.testing.assert_array_equal(*said)


def test_mtp_layers_are_left_out(nano_path: Path, tmp_path: Path) -> None:
    card = read_card(made(with_mtp(tmp_path / "mtp.gguf", nano_path), tmp_path / "probe.gguf"))
    assert (card.layers, card.nextn_layers) == (2, 0)


def test_tensors_that_are_never_computed_are_zero_and_small(nano_path: Path, tmp_path: Path) -> None:
    card = read_card(made(nano_path, tmp_path / "probe.gguf"))
    assert (card.layers, card.experts) == (2, 16)
    assert {tensor.name.split(".")[1] for tensor in card.tensors if tensor.name.startswith("blk.")} == {"0", "1"}
    blank = [tensor for tensor in card.tensors if "exps" in tensor.name]
    assert {tensor.type for tensor in blank} == {"Q2_K"}
    with GgufSource(card.path) as probe:
        specs = {spec.name: spec for spec in probe.tensors}
        for tensor in blank:
            assert not probe.stored_rows(specs[tensor.name], 0, specs[tensor.name].rows).any()
        assert probe.stored_rows(specs["blk.1.ffn_gate_inp.weight"], 0, 16).any()


def test_a_dense_model_has_no_router_to_probe(tmp_path: Path) -> None:
    with GgufSource(model(tmp_path / "dense.gguf")) as dense, pytest.raises(Incompatible, match="dense"):
        RouterProbe(dense)


def test_arrays_of_a_number_for_each_layer_are_cut() -> None:
    assert _first(i32s("x.head_count_kv", [8, 4, 2]), 2, 3) == i32s("x.head_count_kv", [8, 4])
    flags = KeyValue("x.windowed", struct.pack("<IIQ3?", 9, 7, 3, True, False, True))
    assert _first(flags, 1, 3) == KeyValue("x.windowed", struct.pack("<IIQ1?", 9, 7, 1, True))


@pytest.mark.parametrize(
    "entry",
    [i32s("x.sections", [1, 2, 3, 4]), writer.u32("x.width", 3), writer.texts("x.names", [b"a", b"b", b"c"])],
)
def test_other_metadata_stays(entry: KeyValue) -> None:
    assert _first(entry, 2, 3) == entry
