"""How sampling settings are read and told."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.models.sampling import (
    SETTINGS,
    SamplingRequest,
    bias_text,
    breakers_of,
    effective,
    logit_bias_of,
    sampling_json,
    sampling_words,
)
from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams


def test_every_setting_is_told_and_can_be_asked_for() -> None:
    others = {"seed", "max_tokens", "think_budget", "stop", "top_logprobs", "end_loops"}
    assert set(SETTINGS) | others == {field.name for field in fields(SamplingRequest)}
    assert set(SETTINGS) | others | {"extensions", "statistics", "entropy"} == {
        field.name for field in fields(SamplingParams)
    }


def test_settings_without_an_effect_are_not_told() -> None:
    params = SamplingParams(temperature=0.6, top_p=0.95, top_k=20, penalty_last_n=500, dry_base=3.0, xtc_threshold=0.2)
    assert sampling_words(params) == ["temp 0.6", "top-p 0.95", "top-k 20"]
    told = SamplingParams(
        presence_penalty=1.5, dry_multiplier=0.8, dry_sequence_breakers=(), logit_bias=((7, -math.inf), ("7", 2.0))
    )
    assert sampling_words(told) == [
        "temp 0.6", "top-p 0.95", "top-k 40", "presence-penalty 1.5", "dry-multiplier 0.8",
        "dry-sequence-breaker none", 'logit-bias 7=-inf "7"=2',
    ]  # fmt: skip
    assert effective(told)["dry_sequence_breakers"] == ()


def test_json_has_no_number_that_json_lacks() -> None:
    body = sampling_json(SamplingParams(logit_bias=((7, -math.inf), ("no", -1.5))))
    assert json.loads(json.dumps(body, allow_nan=False))["logit_bias"] == ["7=-inf", "no=-1.5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1234=-5", (1234, -5.0)),
        (" Hello=2.5", (" Hello", 2.5)),
        ('"42"=-1', ("42", -1.0)),
        ("a=b=1", ("a=b", 1.0)),
        ("</think>=-inf", ("</think>", -math.inf)),
        ("12345678901=1", ("12345678901", 1.0)),
    ],
)
def test_a_logit_bias_is_for_a_token_or_a_text(text: str, expected: tuple[int | str, float]) -> None:
    assert logit_bias_of(text) == expected


@pytest.mark.parametrize("text", ["", "=1", "x", "x=", "x=y", "x=nan", "5"])
def test_what_is_no_logit_bias_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a logit bias is TOKEN=BIAS"):
        logit_bias_of(text)


@given(st.integers(0, 999_999_999) | st.text(min_size=1), st.integers(-100, 100))
def test_a_bias_that_is_told_can_be_read(token: int | str, bias: int) -> None:
    assert logit_bias_of(bias_text(token, bias)) == (token, bias)


def test_breakers_have_line_ends_and_can_be_none() -> None:
    assert breakers_of((r"\n", ":", r"a\tb")) == ("\n", ":", "a\tb")
    assert breakers_of(("none",)) == ()
    with pytest.raises(UsageError, match="none cannot be combined"):
        breakers_of(("none", ":"))


def test_options_win_over_the_settings_file_which_wins_over_the_recommendation() -> None:
    asked = SamplingRequest(temperature=0.3, seed=1).with_usual({"temperature": 0.9, "presence_penalty": 0.5})
    params = asked.applied_to(SamplingParams(presence_penalty=1.5, top_k=20))
    assert (params.temperature, params.presence_penalty, params.top_k) == (0.3, 0.5, 20)
