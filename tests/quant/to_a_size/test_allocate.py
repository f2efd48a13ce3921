"""The knapsack against every possible assignment, and the plans it makes against files that are written."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.sources.source import GgufSource
from quant.to_a_size.allocate import Allocation, Option, allocate, plan_of_size
from quant.to_a_size.losses import Losses, measure_losses
from quant.write.execute import quantize
from runtime.base.errors import DoesNotFit
from runtime.base.run import Run
from tests.quant.models import importance, model

WEIGHTS = st.one_of(st.floats(0, 10, allow_subnormal=False), st.integers(0, 4).map(float))
OPTIONS = st.builds(Option, type=st.just("Q"), bytes=st.integers(0, 30), loss=WEIGHTS)
ITEMS = st.lists(st.lists(OPTIONS, min_size=1, max_size=4), min_size=1, max_size=5)


def best(items: list[list[Option]], budget: int) -> float | None:
    """By trying everything."""
    return min(
        (
            sum(option.loss for option in picked)
            for picked in itertools.product(*items)
            if sum(option.bytes for option in picked) <= budget
        ),
        default=None,
    )


@settings(max_examples=400, deadline=None)
@given(ITEMS, st.integers(0, 120))
def test_no_assignment_within_the_budget_is_better(items: list[list[Option]], budget: int) -> None:
    wanted = best(items, budget)
    if wanted is None:
        with pytest.raises(DoesNotFit):
            allocate(items, budget)
        return
    found = allocate(items, budget)
    picked = [options[pick] for options, pick in zip(items, found.picks, strict=True)]
    assert found.bytes == sum(option.bytes for option in picked) <= budget
    assert found.loss == pytest.approx(sum(option.loss for option in picked), abs=1e-12)
    assert found.loss == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert found.bound <= wanted + 1e-9


def test_the_greedy_answer_is_not_taken_where_another_is_better() -> None:
    """By loss per byte the first item comes first, and then the second has no room."""
    items = [
        [Option("low", 0, 6.0), Option("high", 6, 0.0)],
        [Option("low", 0, 9.0), Option("high", 10, 0.0)],
    ]
    found = allocate(items, 10)
    assert found.picks == (0, 1)
    assert (found.bytes, found.loss, found.gap) == (10, 6.0, 0.0)


def test_an_option_off_the_hull_is_taken_where_it_fills_the_budget() -> None:
    items = [[Option("low", 0, 10.0), Option("middle", 5, 6.0), Option("high", 10, 0.0)]]
    assert allocate(items, 9).picks == (1,)


def test_with_room_for_all_the_least_loss_wins_in_the_fewest_bytes() -> None:
    items = [[Option("a", 4, 1.0), Option("b", 8, 0.0), Option("c", 16, 0.0)]]
    assert allocate(items, 100) == Allocation(picks=(1,), bytes=8, loss=0.0, bound=0.0)


def test_a_thousand_tensors_are_solved_within_a_millionth() -> None:
    chance = random.Random(5)
    bits = (1.56, 1.75, 2.06, 2.31, 2.56, 3.06, 3.44, 4.25, 4.5, 5.5, 6.56, 8.5)
    items = []
    for _ in range(1000):
        weights, scale = chance.choice((1, 4, 16)) * chance.randint(1000, 5000), 10 ** chance.uniform(-6, -1)
        items.append([Option(str(b), int(weights * b / 8), scale * 4**-b * chance.uniform(0.8, 1.2)) for b in bits])
    budget = sum(options[6].bytes for options in items)
    found = allocate(items, budget)
    assert found.bytes <= budget
    assert found.gap < 1e-6


def test_a_gap_is_told_where_not_everything_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.to_a_size.allocate._MOST_STATES", 2)
    chance = random.Random(3)
    gaps = []
    for _ in range(40):
        items = [[Option("q", chance.randint(1, 40), chance.random()) for _ in range(4)] for _ in range(6)]
        budget = sum(min(option.bytes for option in options) for options in items) + 31
        found, wanted = allocate(items, budget), best(items, budget)
        assert wanted is not None
        assert found.bound <= wanted + 1e-12 <= found.loss + 2e-12
        gaps.append(found.gap)
    assert max(gaps) > 0


@pytest.fixture(scope="module")
def mixture_of_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    return model(path, layers=2, width=256, hidden=64, experts=2, heads=64, kv_heads=8)


@pytest.fixture(scope="module")
def plain_losses(mixture_of_experts: Path, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    with GgufSource(mixture_of_experts) as source:
        return measure_losses(source, None, tmp_path_factory.mktemp("cache"), Run(threads=1))


@pytest.mark.parametrize("with_importance", [False, True])
def test_the_file_has_at_most_the_size_asked_for(
    mixture_of_experts: Path, plain_losses: Losses, tmp_path: Path, with_importance: bool
) -> None:
    with GgufSource(mixture_of_experts) as opened:
        source = opened.with_importance(importance(mixture_of_experts)) if with_importance else opened
        losses = measure_losses(source, None, tmp_path, Run()) if with_importance else plain_losses
        fitted = plan_of_size(source, 450_000, losses)
        assert not fitted.plan.needs_imatrix
        out = tmp_path / "out.gguf"
        quantize(source, fitted.plan, out, Run(threads=1))
    # The smallest step between types, of any tensor here, is some hundred bytes.
    assert 445_000 < out.stat().st_size == fitted.plan.bytes <= 450_000
    types = {tensor.name: tensor.target for tensor in fitted.plan.tensors}
    assert types["blk.0.attn_norm.weight"] == types["blk.0.ffn_gate_inp.weight"] == "F32"
    # Rows of 64 have blocks of 32.
    assert types["blk.1.ffn_down_exps.weight"] in {"IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"}
    if not with_importance:
        assert not {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"} & set(types.values())


def test_without_a_measurement_the_plan_says_so_and_predicts_nothing(
    mixture_of_experts: Path, plain_losses: Losses
) -> None:
    with GgufSource(mixture_of_experts) as source:
        fitted = plan_of_size(source, 500_000, plain_losses)
    assert fitted.predicted_kld is None
    assert any("not measured on the model" in warning for warning in fitted.plan.warnings)
    assert fitted.plan.tensors[-1].rule.startswith("bits where they matter: a relative error of ")


def test_tensors_with_large_weights_get_the_bits_and_the_prediction_is_the_sum(
    mixture_of_experts: Path, plain_losses: Losses
) -> None:
    with GgufSource(mixture_of_experts) as source:
        weights = {name: 100.0 if "attn_v" in name else 0.01 for name in plain_losses}
        fitted = plan_of_size(source, 500_000, plain_losses, weights)
    types = {tensor.name: tensor.target for tensor in fitted.plan.tensors}
    assert types["blk.0.attn_v.weight"] == types["blk.1.attn_v.weight"] == "F16"
    wanted = sum(weights[name] * each[types[name]] for name, each in plain_losses.items())
    assert fitted.predicted_kld == pytest.approx(wanted)


def test_an_impossible_size_names_the_smallest(mixture_of_experts: Path, plain_losses: Losses) -> None:
    with GgufSource(mixture_of_experts) as source:
        with pytest.raises(DoesNotFit, match=r"\((\d+) bytes\)") as caught:
            plan_of_size(source, 1000, plain_losses)
        smallest = int(caught.value.message.split(" bytes)")[0].rsplit("(", 1)[1])
        assert plan_of_size(source, smallest, plain_losses).plan.bytes == smallest
        with pytest.raises(DoesNotFit):
            plan_of_size(source, smallest - 1, plain_losses)
