"""Entropy minimisation at the logits, by what follows from its formulas."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from runtime.base.types import EntropyMinimisation
from runtime.engine.entropy import EntropySampler, minimise

SETTINGS = EntropyMinimisation()


def entropy(logits: np.ndarray) -> float:
    q = np.exp(logits - logits.max())
    q /= q.sum()
    return float(-(q * np.log(q)).sum())


def test_the_first_step_moves_each_logit_by_the_learning_rate() -> None:
    # Adam's first step is the rate times the sign of the gradient: what is likelier than exp(-H) rises, the rest falls.
    logits = np.array([2.0, 1.0, 0.5, 0.0])
    moved = minimise(logits, EntropyMinimisation(steps=1, kl_weight=0.0)) - logits
    assert moved == pytest.approx([0.1, -0.1, -0.1, -0.1], abs=1e-6)


def test_steps_lower_the_entropy_and_keep_the_likeliest() -> None:
    logits = np.random.default_rng(1).normal(size=50)
    found = [minimise(logits, EntropyMinimisation(steps=steps)) for steps in (0, 1, 3, 10)]
    assert [int(each.argmax()) for each in found] == [int(logits.argmax())] * 4
    assert sorted(map(entropy, found), reverse=True) == [entropy(each) for each in found]


def test_where_the_model_is_sure_nothing_changes() -> None:
    logits = np.array([9.0, 0.0, 0.0])
    assert (minimise(logits, SETTINGS) == logits).all()


def test_draws_follow_the_sharpened_chances() -> None:
    logits = np.array([1.0, 0.9, -3.0], np.float32)
    sampler = EntropySampler(SETTINGS, seed=3)
    drawn = Counter(sampler.draw(logits) for _ in range(2000))
    sharpened = minimise(logits.astype(np.float64), SETTINGS) / SETTINGS.temperature
    chance = float(1 / (1 + np.exp(sharpened[1] - sharpened[0])))
    assert drawn[0] / 2000 == pytest.approx(chance, abs=0.04)
    assert drawn[2] == 0


def test_the_same_seed_draws_the_same_tokens_and_only_the_likeliest_count() -> None:
    logits = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    first, second = (EntropySampler(SETTINGS, seed=9) for _ in range(2))
    drawn = [first.draw(logits) for _ in range(20)]
    assert drawn == [second.draw(logits) for _ in range(20)]
    likeliest = set(np.argsort(logits)[-512:].tolist())
    assert set(drawn) <= likeliest
