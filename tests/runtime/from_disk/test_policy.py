"""Which experts a policy ranks above which."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from runtime.from_disk.policy import Frequency


def counts(experts: int, *chosen: int, tokens: int = 1) -> np.ndarray:
    found = np.zeros(experts, int)
    found[list(chosen)] = tokens
    return found


def test_without_knowledge_the_layer_that_comes_next_is_worth_most() -> None:
    worth = Frequency(3, 4, 2).worth(1).reshape(3, 4)
    # Half of the experts are active, so an expert is left out once before a pass needs it.
    assert worth[2] == pytest.approx([1 / (1 + 1 / 3)] * 4)
    assert worth[0] == pytest.approx([1 / (1 + 2 / 3)] * 4)
    assert worth[1] == pytest.approx([1 / (1 + 3 / 3)] * 4)


def test_a_chosen_expert_is_worth_more_than_one_that_was_left_out() -> None:
    policy = Frequency(1, 4, 1)
    policy.used(0, counts(4, 2))
    assert policy.worth(0).argmax() == 2


def test_a_steady_expert_outlives_one_that_was_chosen_last() -> None:
    policy = Frequency(1, 4, 1)
    for _ in range(30):
        policy.used(0, counts(4, 1))
    policy.used(0, counts(4, 2))
    worth = policy.worth(0)
    assert worth[1] > worth[2] > worth[0] == worth[3]


def test_a_habit_is_given_up_after_a_few_tokens() -> None:
    policy = Frequency(1, 4, 1)
    for _ in range(1000):
        policy.used(0, counts(4, 1))
    followed = []
    for _ in range(20):
        policy.used(0, counts(4, 2))
        followed.append(bool(policy.worth(0)[2] > policy.worth(0)[1]))
    assert followed.index(True) == 3
    assert all(followed[3:])


def test_a_pass_of_many_tokens_is_as_many_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Frequency, "_weigh", lambda self, shares, chosen: None)
    together, apart = Frequency(1, 2, 1), Frequency(1, 2, 1)
    together.used(0, counts(2, 0, tokens=50))
    for _ in range(50):
        apart.used(0, counts(2, 0))
    assert together.worth(0) == pytest.approx(apart.worth(0))


def weights_after(chosen: Iterable[int], experts: int) -> list[float]:
    policy = Frequency(1, experts, 1)
    for each in chosen:
        policy.used(0, counts(experts, each))
    return policy._weights.tolist()


def test_routers_that_repeat_themselves_give_the_short_time_scales_the_weight() -> None:
    weights = weights_after((number // 20 % 16 for number in range(640)), 16)
    assert weights[0] + weights[1] > 0.8


def test_independent_choices_give_the_long_time_scales_the_weight() -> None:
    rng = np.random.default_rng(7)
    weights = weights_after(rng.choice(4, 600, p=[0.7, 0.1, 0.1, 0.1]), 4)
    assert weights[2] + weights[3] > 0.6


def test_the_number_of_tokens_in_a_pass_does_not_raise_the_worth_of_its_layer() -> None:
    # The last layer of a prompt computes its last token only.
    policy = Frequency(2, 4, 1)
    policy.used(0, np.array([256, 128, 64, 64]))
    policy.used(1, counts(4, 0))
    worth = policy.worth(1).reshape(2, 4)
    assert worth[1, 0] > worth[0, 0] > worth[0, 1] > worth[0, 2]


def test_a_layer_that_computed_nothing_changes_nothing() -> None:
    policy = Frequency(1, 4, 2)
    before = policy.worth(0)
    policy.used(0, counts(4))
    assert (policy.worth(0) == before).all()


def test_a_seed_ranks_experts_before_the_first_token_and_is_outvoted_later() -> None:
    policy = Frequency(2, 4, 1, seed=np.array([[10, 0, 30, 0], [0, 0, 0, 0]]))
    worth = policy.worth(0).reshape(2, 4)
    assert worth[0, 2] > worth[0, 0] > worth[0, 1] == worth[0, 3]
    assert len(set(worth[1])) == 1  # a layer that the profile does not know
    for _ in range(100):
        policy.used(0, counts(4, 1))
    assert policy.worth(0).reshape(2, 4)[0].argmax() == 1


def test_a_seed_counts_by_its_proportions() -> None:
    picks = np.array([[3, 1, 0, 4]])
    assert Frequency(1, 4, 2, seed=picks).worth(0) == pytest.approx(Frequency(1, 4, 2, seed=picks / 1000).worth(0))


@pytest.mark.parametrize("seed", [np.ones((2, 4)), np.array([[-1.0, 1, 1, 1]]), np.array([[np.inf, 1, 1, 1]])])
def test_a_wrong_seed_is_refused(seed: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a seed of the shape"):
        Frequency(1, 4, 1, seed=seed)


def test_more_active_experts_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4 experts"):
        Frequency(1, 4, 5)


def test_a_seed_too_small_to_divide_is_no_seed() -> None:
    tiny = np.array([[5e-324, 0.0, 0.0]])
    assert np.array_equal(Frequency(1, 3, 2, seed=tiny).worth(0), Frequency(1, 3, 2, seed=np.zeros((1, 3))).worth(0))


@settings(deadline=None)
@given(
    seed=st.none() | arrays(np.float64, (3, 5), elements=st.floats(0, 1e300)),
    passes=st.lists(
        st.tuples(st.integers(0, 2), st.sets(st.integers(0, 4), min_size=2, max_size=2), st.integers(1, 100_000)),
        max_size=30,
    ),
)
def test_worth_is_finite_and_positive(seed: np.ndarray | None, passes: list[tuple[int, set[int], int]]) -> None:
    policy = Frequency(3, 5, 2, seed=seed)
    for layer, chosen, tokens in passes:
        policy.used(layer, counts(5, *chosen, tokens=tokens))
        worth = policy.worth(layer)
        assert worth.shape == (15,)
        assert np.isfinite(worth).all()
        assert (worth > 0).all()
