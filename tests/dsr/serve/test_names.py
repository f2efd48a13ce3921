"""Other names of the first model."""

from __future__ import annotations

import pytest

from dsr.models import library
from dsr.serve.names import Names
from runtime.base.errors import NotFound, UsageError


def names(*aliases: str) -> Names:
    return Names([library.find("nano")], aliases)


def test_an_alias_means_the_first_model_also_with_a_strategy() -> None:
    found = names("gpt-4o", "a@b")
    assert found.find("gpt-4o").model.short_name == "nano"
    assert found.find("gpt-4o@vote8").settings == ("n=8",)
    assert found.find("a@b").strategy == ""


def test_without_the_star_an_unknown_name_stays_unknown() -> None:
    with pytest.raises(NotFound, match="there is no model 'gpt-4'"):
        names("gpt-4o").find("gpt-4")


def test_the_star_is_every_name_that_means_no_model() -> None:
    assert names("*").find("anything").model.short_name == "nano"


def test_aliases_need_a_model() -> None:
    with pytest.raises(UsageError, match="--alias names the first model, and none is given"):
        Names([], ["gpt-4o"])
