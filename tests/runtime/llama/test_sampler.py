"""What is drawn from a row of logits, and how sure the model was of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from runtime.base.types import SamplingParams
from runtime.llama.sampler import candidate_count, statistics, top_tokens


@pytest.mark.parametrize("size", [5, 20, 640, 1281, 2000, 49153])
def test_the_likeliest_are_those_that_sorting_finds(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    for row in (values, np.sort(values), np.sort(values)[::-1]):
        expected = np.argsort(-row, kind="stable")[:20]
        found = top_tokens(row, 20)
        assert found.tokens.tolist() == expected.tolist()
        assert found.logits.tolist() == row[expected].tolist()


@given(arrays(np.float32, st.integers(1, 400), elements=st.integers(-3, 3)), st.integers(1, 12))
def test_among_equals_the_lower_number_is_the_likelier(row: np.ndarray, count: int) -> None:
    assert top_tokens(row, count).tokens.tolist() == np.argsort(-row, kind="stable")[:count].tolist()


def test_what_is_no_number_is_the_least_likely() -> None:
    row = np.full(4000, np.nan, np.float32)
    row[[7, 3999]] = 1.0, 2.0
    assert top_tokens(row, 4).tokens[:2].tolist() == [3999, 7]
    assert np.isnan(statistics(row, None, 7, np.empty_like(row)).confidence)


def test_statistics_are_the_same_whether_the_likeliest_are_known_or_not() -> None:
    row = np.random.default_rng(0).normal(0, 4, 3000).astype(np.float32)
    scratch = np.empty_like(row)
    known = statistics(row, top_tokens(row, 40), 5, scratch)
    assert known == pytest.approx(statistics(row, None, 5, scratch), rel=1e-6)


def test_statistics_of_a_row_where_all_tokens_are_as_likely() -> None:
    found = statistics(np.full(1000, 3.0, np.float32), None, 5, np.empty(1000, np.float32))
    assert found == pytest.approx((-np.log(1000), np.log(1000), 0), abs=1e-5)


def test_a_top_k_that_keeps_nearly_all_is_left_to_the_chain() -> None:
    assert [candidate_count(SamplingParams(top_k=count), 49152) for count in (0, 1, 40, 128, 129)] == [
        None,
        20,
        40,
        128,
        None,
    ]
    assert candidate_count(SamplingParams(), 640) is None


def test_greedy_needs_few_candidates_and_the_deviation_of_all_logits_needs_all() -> None:
    assert candidate_count(SamplingParams(temperature=0, top_k=0), 49152) == 20
    assert candidate_count(SamplingParams(temperature=0, top_k=0, typical_p=0.9), 49152) is None
    assert candidate_count(SamplingParams(temperature=0, top_k=0, xtc_probability=0.5), 49152) is None
    assert candidate_count(SamplingParams(top_n_sigma=1.0), 49152) is None
