"""YaRN and the positions that a header describes."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.gguf.engine_lists import ARCHITECTURES
from runtime.gguf.rope import WITHOUT_ROPE, Yarn
from runtime.gguf.rope import yarn_of_header as of_header
from tests.dsr.loading.test_reach import card


def test_a_text_with_yarn_is_as_long_as_the_factor_says() -> None:
    assert Yarn(4, 32768).reach == 131072
    assert Yarn(1.5, 2048).reach == 3072
    assert Yarn(64, 2**31 - 1).reach == 2**31 - 1


@pytest.mark.parametrize(("factor", "original"), [(1, 2048), (0.5, 2048), (64.5, 2048), (float("nan"), 9), (2, 0)])
def test_factors_and_lengths_out_of_bounds_are_refused(factor: float, original: int) -> None:
    with pytest.raises(UsageError):
        Yarn(factor, original)


def test_the_header_has_yarn_where_it_names_kind_factor_and_length() -> None:
    whole = {"rope__scaling__type": "yarn", "rope__scaling__factor": 40.0}
    length = {"rope__scaling__original_context_length": 4096}
    assert of_header(card(**whole, **length)) == Yarn(40, 4096)
    assert of_header(card(**whole)) is None
    assert of_header(card(**length)) is None
    for odd in ("4096", 0, -1, True):
        assert of_header(card(**whole, rope__scaling__original_context_length=odd)) is None
    for odd in (float("inf"), float("nan"), 1e9, "40"):
        assert of_header(card(rope__scaling__type="yarn", rope__scaling__factor=odd, **length)) is None


def test_models_without_rotary_positions_are_those_of_the_engine() -> None:
    assert WITHOUT_ROPE <= ARCHITECTURES
