"""The table of strategies, and settings given as text."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.strategies import STRATEGIES, deepconf, find, vote


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_every_setting_has_a_default_that_is_valid(strategy) -> None:  # type: ignore[no-untyped-def]
    if strategy.name != "monkeys":  # which needs a check
        assert strategy.chosen({}) == strategy.settings(**strategy.defaults())


def test_settings_are_read_from_text() -> None:
    assert find("vote").chosen({"n": "16", "stop": "esc", "weights": "certainty"}) == vote.Settings(
        16, "certainty", "esc"
    )
    assert find("deepconf").chosen({"share": "0.5"}) == deepconf.Settings(share=0.5)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"m": "3"}, "vote has no setting 'm'"),
        ({"n": "many"}, "vote: n takes a number, not 'many'"),
        ({"stop": "bita"}, "vote: stop is one of beta, esc, certain, none, not 'bita'"),
        ({"n": "0"}, "between 1 and 255 samples can be drawn, not 0"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        find("vote").chosen(given)


def test_an_unknown_strategy_is_answered_with_what_may_be_meant() -> None:
    with pytest.raises(UsageError) as caught:
        find("first-finnish")
    assert caught.value.hint is not None and caught.value.hint.endswith("did you mean first-finish?")
