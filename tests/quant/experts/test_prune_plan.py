"""Choosing experts: what counts for which score, how tasks merge, what a plan says, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.experts.profile import Profile
from quant.experts.prune_plan import keep_count, plan_prune, plan_random
from quant.experts.scores import SCORES, ranking, scores
from quant.measure.imatrix import Routing
from runtime.base.errors import Incompatible, UsageError
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import card_from_headers, parse_header, read_card
from tests.gguf_writer import T, header, llama_metadata, write


def routing(
    selected: Sequence[int], output: Sequence[float] | None = None, top_logit: Sequence[float] | None = None
) -> Routing:
    counts = np.array(selected, np.int64)
    weight = counts.astype(np.float64)
    return Routing(
        counts,
        weight,
        np.ones(len(counts)) / len(counts),
        weight if top_logit is None else np.array(top_logit),
        weight if output is None else np.array(output),
    )


def profile(layers: Mapping[int, Routing], task: str = "task", active: int = 2) -> Profile:
    return Profile(task, layers, 10, active, np.zeros((0, 4), np.float32), "a test", "text")


def card(experts: int = 8, used: int = 2, layers: int = 1, **changes: Any) -> ModelCard:
    """A llama-like mixture that is nothing but its header."""
    tensors = [T("token_embd.weight", (32, 8)), T("output_norm.weight", (32,))]
    for n in range(layers):
        tensors += [
            T(f"blk.{n}.attn_norm.weight", (32,)),
            T(f"blk.{n}.ffn_gate_inp.weight", (32, experts)),
            T(f"blk.{n}.ffn_gate_exps.weight", (32, 32, experts), "Q8_0"),
            T(f"blk.{n}.ffn_up_exps.weight", (32, 32, experts), "Q8_0"),
            T(f"blk.{n}.ffn_down_exps.weight", (32, 32, experts), "Q8_0"),
        ]
    metadata = llama_metadata() | {
        "general.architecture": "mixture",
        "mixture.block_count": layers,
        "mixture.embedding_length": 32,
        "mixture.context_length": 128,
        "mixture.attention.head_count": 4,
        "mixture.expert_count": experts,
        "mixture.expert_used_count": used,
        **{f"mixture.{key}": value for key, value in changes.items()},
    }
    data = header(metadata, tensors)
    size = len(data) + sum(-(-tensor.size // 32) * 32 for tensor in tensors)
    return card_from_headers((Path("model.gguf"),), (parse_header(data, size, Path("model.gguf")),))


def test_the_best_experts_of_each_layer_are_kept() -> None:
    layers = {0: routing([9, 0, 8, 1, 7, 2, 6, 3]), 1: routing([0, 1, 2, 3, 4, 5, 6, 7])}
    made = plan_prune(card(layers=2), [profile(layers)], 3)
    assert made.kept == {0: (0, 2, 4), 1: (5, 6, 7)}
    assert made.layer_lost_weight == {0: pytest.approx(12 / 36), 1: pytest.approx(10 / 28)}
    assert made.lost_weight == pytest.approx((12 / 36 + 10 / 28) / 2)
    assert (made.experts, made.keep, made.active, made.active_before) == (8, 3, 2, 2)
    assert (made.groups, made.grouping, made.unprofiled) == (1, "", ())
    assert (made.tasks, made.score) == (("task",), "easy-ep")
    assert len(made.profiles[0]) == 64


def test_the_plan_counts_the_removed_bytes() -> None:
    made = plan_prune(card(layers=2), [profile({n: routing(range(8)) for n in range(2)})], 6)
    each = 3 * 32 * 34 + 32 * 4  # an expert in Q8_0 and its row of the router
    assert made.weights_before - made.weights_after == 2 * 2 * each


def test_each_score_ranks_by_its_own_statistic() -> None:
    seen = Routing(
        selected=np.array([9, 1, 1, 1, 1]),
        weight=np.array([0.1, 9, 0.1, 0.1, 0.1]),
        probability=np.array([0.1, 0.1, 9, 0.1, 0.1]),
        top_logit=np.array([0.1, 0.1, 0.1, 9, 0.1]),
        output=np.array([0.1, 0.1, 0.1, 0.1, 9]),
    )
    best = {score: int(ranking([profile({0: seen})], score)[0][0]) for score in SCORES}
    assert best == {"counts": 0, "mass": 1, "probability": 2, "tcess": 3, "easy-ep": 4}


def test_a_negative_tcess_ranks_above_none() -> None:
    seen = routing([5, 5, 5, 5], top_logit=[-3.0, 0.0, 4.0, -1.0])
    assert ranking([profile({0: seen})], "tcess")[0].tolist() == [2, 3, 0, 1]


def test_experts_without_a_token_come_last_by_the_routers_probabilities() -> None:
    seen = Routing(
        selected=np.array([0, 3, 0, 1]),
        weight=np.array([0.0, 3, 0, 1]),
        probability=np.array([0.1, 1, 0.3, 0.5]),
        top_logit=np.zeros(4),
        output=np.array([0.0, 3, 0, 1]),
    )
    assert ranking([profile({0: seen})])[0].tolist() == [1, 3, 2, 0]
    assert plan_prune(card(4), [profile({0: seen})], 3).layer_lost_weight == {0: 0.0}


def test_a_layer_without_tokens_keeps_its_first_experts() -> None:
    made = plan_prune(card(4), [profile({0: Routing.empty(4)})], 2)
    assert (made.kept, made.layer_lost_weight) == ({0: (0, 1)}, {0: 0.0})


def test_tasks_have_the_same_weight_whatever_the_length_of_their_text() -> None:
    long, short = routing([600, 300, 100, 0]), routing([0, 0, 5, 5])
    merged = scores([profile({0: long}, "long"), profile({0: short}, "short")])
    assert merged[0] == pytest.approx([0.3, 0.15, 0.3, 0.25])
    made = plan_prune(card(4), [profile({0: long}, "long"), profile({0: short}, "short")], 3)
    assert made.kept == {0: (0, 2, 3)}
    assert made.tasks == ("long", "short")
    assert made.layer_lost_weight == {0: pytest.approx(0.15)}


def test_groups_keep_equally_many_where_that_is_possible() -> None:
    seen = routing([9, 8, 7, 6, 5, 0, 0, 1])
    grouped = card(expert_group_count=2, expert_group_used_count=1)
    made = plan_prune(grouped, [profile({0: seen})], 4)
    assert made.kept == {0: (0, 1, 4, 7)}
    assert (made.groups, made.grouping) == (2, "each of the 2 groups of experts keeps 2 of 4")


@pytest.mark.parametrize(
    ("keep", "active", "groups", "why"),
    [
        (5, 2, 2, "5 is not divisible by 2"),
        (4, 1, 4, "a group must have at least 2 experts"),
        (4, 3, 2, "the 1 groups that a token uses would have fewer than 3 experts"),
    ],
)
def test_groups_are_given_up_where_they_cannot_be_kept(keep: int, active: int, groups: int, why: str) -> None:
    grouped = card(expert_group_count=groups, expert_group_used_count=1)
    made = plan_prune(grouped, [profile({0: routing([9, 8, 7, 6, 5, 0, 0, 1])})], keep, active=active)
    assert made.kept == {0: tuple(range(keep))}
    assert made.groups == 1
    assert made.grouping.endswith(f"groups of experts become one: {why}")


def test_fewer_active_experts_allow_a_smaller_keep() -> None:
    made = plan_prune(card(), [profile({0: routing(range(8))})], 1, active=1)
    assert (made.kept, made.active, made.active_before) == ({0: (7,)}, 1, 2)


@pytest.mark.parametrize(
    ("keep", "options", "problem"),
    [
        (1, {}, "1 expert is too few for a layer: each token uses 2"),
        (3, {"active": 4}, "3 experts are too few for a layer: each token uses 4"),
        (9, {}, "a layer has 8 experts, not 9"),
        (3, {"active": 0}, "a token cannot use 0 of 8 experts"),
        (3, {"score": "luck"}, "unknown score 'luck'"),
    ],
)
def test_impossible_numbers_are_refused(keep: int, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        plan_prune(card(), [profile({0: routing(range(8))})], keep, **options)


def test_without_a_profile_there_is_no_plan() -> None:
    with pytest.raises(UsageError, match="no task is given"):
        plan_prune(card(), [], 4)


@pytest.mark.parametrize(
    "layers", [{0: routing(range(4))}, {1: routing(range(8))}, {n: routing(range(8)) for n in range(3)}]
)
def test_a_profile_of_another_model_is_refused(layers: dict[int, Routing]) -> None:
    with pytest.raises(Incompatible, match="the profile of task is of another model") as error:
        plan_prune(card(), [profile(layers)], 4)
    assert "dsr experts profile MODEL --task task" in str(error.value.hint)


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="is a dense model"):
        plan_prune(read_card(write(tmp_path / "dense.gguf")), [profile({0: routing(range(8))})], 4)


def test_experts_chosen_by_the_token_are_refused() -> None:
    base = card()
    hashed = replace(base.tensors[0], name="blk.0.ffn_gate_tid2eid.weight")
    with pytest.raises(Incompatible, match=r"dsr cannot separate the experts in .*tid2eid\.weight"):
        plan_prune(replace(base, tensors=(*base.tensors, hashed)), [profile({0: routing(range(8))})], 4)


def test_an_mtp_layer_keeps_its_first_experts() -> None:
    made = plan_prune(card(layers=2, nextn_predict_layers=1), [profile({0: routing(range(8))})], 4)
    assert made.kept == {0: (4, 5, 6, 7), 1: (0, 1, 2, 3)}
    assert made.unprofiled == (1,)
    assert set(made.layer_lost_weight) == {0}


def test_random_experts_follow_the_seed() -> None:
    first, again, other = (plan_random(card(layers=2), 4, seed) for seed in (1, 1, 2))
    assert first.kept == again.kept != other.kept
    assert (first.score, first.tasks, first.profiles, first.layer_lost_weight, first.unprofiled) == (
        "random",
        (),
        (),
        {},
        (),
    )


@given(st.integers(0, 2**32), st.sampled_from([(8, 1), (12, 2), (12, 3), (16, 4)]), st.data())
def test_every_plan_is_sound(seed: int, shape: tuple[int, int], data: st.DataObject) -> None:
    experts, groups = shape
    keep = data.draw(st.integers(2, experts))
    grouped = {"expert_group_count": groups, "expert_group_used_count": 1} if groups > 1 else {}
    made = plan_random(card(experts, **grouped), keep, seed)
    for kept in made.kept.values():
        assert len(kept) == keep
        size = experts // made.groups
        counts = [sum(expert // size == group for expert in kept) for group in range(made.groups)]
        assert set(counts) == {keep // made.groups}


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("8", 8), ("1", 1), ("16", 16), ("50%", 8), ("100%", 16), ("26%", 5), ("12.5%", 2), ("1%", 1)],
)
def test_keep_is_a_number_or_a_share(wanted: str, number: int) -> None:
    assert keep_count(wanted, 16) == number


@pytest.mark.parametrize("wanted", ["0", "17", "-3", "101%", "0%", "half", "", "%", "3.5", "nan%", "inf%", "8 %%"])
def test_other_values_of_keep_are_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match="--keep"):
        keep_count(wanted, 16)
