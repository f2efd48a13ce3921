"""The table of strategies, and settings given as text."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.strategies import deepconf, vote
from runtime.strategies.strategy import STRATEGIES, StrategyKind, find, stored_name


@pytest.mark.parametrize("kind", STRATEGIES.values(), ids=STRATEGIES)
def test_every_setting_has_a_default_that_is_valid(kind: StrategyKind) -> None:
    assert kind.configured().settings == kind.settings()
    assert kind.configured(kind.defaults()).settings == kind.settings()


def test_settings_are_read_from_text() -> None:
    given = find("vote").configured(["n=16", "stop=esc", "weights=certainty"])
    assert given.settings == vote.VoteSettings(16, "certainty", "esc")
    assert find("deepconf").configured(["share=0.5"]).settings == deepconf.DeepConfSettings(share=0.5)


def test_a_number_needs_no_text_and_a_text_wins_over_it() -> None:
    assert find("vote").configured(n=16) == find("vote").configured(["n=16"])
    assert str(find("vote").configured(["stop=none", "n=4"], n=16)) == "vote n=4 stop=none"


def test_a_renamed_strategy_keeps_its_old_name_as_alias_and_in_json() -> None:
    assert find("monkeys") is find("repeated-sampling")
    assert (stored_name("repeated-sampling"), stored_name("vote")) == ("monkeys", "vote")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("m=3", "vote has no setting 'm'"),
        ("n=many", "vote: n takes a number, not 'many'"),
        ("stop=bita", "vote: stop is one of beta, esc, certain, none, not 'bita'"),
        ("n=0", "between 1 and 255 samples can be drawn, not 0"),
    ],
)
def test_a_wrong_setting_is_named(given: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        find("vote").configured([given])


def test_an_unknown_strategy_is_answered_with_what_may_be_meant() -> None:
    with pytest.raises(UsageError) as caught:
        find("first-finnish")
    assert caught.value.hint is not None and caught.value.hint.endswith("did you mean first-finish?")
