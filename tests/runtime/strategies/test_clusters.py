"""Texts that say similar things end in one cluster."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.strategies.clusters import clusters, tf_idf


def test_texts_of_the_same_words_are_together() -> None:
    texts = ["add 3 and 4", "the cat sat", "add 4 and 3", "the cat sat down", "add 3 and 4 now"]
    labels = clusters(texts, 2, seed=1)
    assert labels[0] == labels[2] == labels[4] != labels[1] == labels[3]


def test_a_word_weighs_by_how_rare_it_is() -> None:
    [first, _] = tf_idf(["x = 5", "x = 7"])
    # x is in both texts: ln(3/3) + 1 = 1; 5 is in one: ln(3/2) + 1.
    rare = math.log(1.5) + 1
    assert first == pytest.approx({"x": 1 / math.hypot(1, rare), "5": rare / math.hypot(1, rare)})


def test_there_are_never_more_clusters_than_different_texts() -> None:
    assert clusters(["a", "a", "a"], 3) == (0, 0, 0)
    assert clusters(["", "  "], 2) == (0, 0)
    assert clusters([], 2) == ()


@given(st.lists(st.text("ab 5\n", max_size=12), max_size=12), st.integers(1, 5), st.integers(0, 3))
def test_every_text_has_one_and_equal_texts_have_the_same(texts: list[str], k: int, seed: int) -> None:
    labels = clusters(texts, k, seed)
    assert labels == clusters(texts, k, seed)
    assert len(labels) == len(texts) and all(0 <= label < k for label in labels)
    assert len(set(zip(texts, labels, strict=True))) == len(set(texts))
