"""`--route`: two models are opened as one, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsr.chat.summary import routes_json, stats_line
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models import library
from runtime.base.errors import UsageError
from runtime.base.run import Run
from runtime.engine.routing import RoutedBackend, RouteStatistics
from tests.dsr.chat.chatting import conversation


@pytest.mark.parametrize("draft", [None, "ngram", "mtp"])
def test_a_small_model_is_needed(draft: str | None) -> None:
    with pytest.raises(UsageError, match="--route needs a small model that writes most of the tokens") as caught:
        LoadOptions(draft=draft, route=0.2)
    assert caught.value.hint == "name one of the same family: --draft MODEL --route 0.2"


@pytest.mark.parametrize("route", [-0.1, float("nan"), float("inf")])
def test_only_an_entropy_is_a_threshold(route: float) -> None:
    with pytest.raises(UsageError, match="--route is an entropy in nats, 0 or more"):
        LoadOptions(draft="nano", route=route)


def test_no_rows_are_kept_for_drafts() -> None:
    assert LoadOptions(draft="nano", route=0.2).drafted == 0


def test_both_models_are_opened_as_one(nano_path: Path) -> None:
    options = LoadOptions(context=512, draft=str(nano_path), route=0.2, slots=2)
    with load(library.find(str(nano_path)), options, Run(threads=1)) as model:
        assert isinstance(model.backend, RoutedBackend)
        assert model.backend.slots == 2
        assert (model.drafter, model.state_identity) == (None, "")
        assert model.routes is not None
        assert model.routes() == RouteStatistics()


def test_the_share_of_the_large_model_is_told() -> None:
    talk = conversation("4")
    talk.loaded = replace(talk.loaded, routes=lambda: RouteStatistics(small=3, large=1))
    list(talk.ask("2+2"))
    assert talk.last is not None
    assert stats_line(talk.last).endswith(", 25.0% of the tokens by the large model")
    assert routes_json(talk.last.routes) == {"small": 3, "large": 1}
    assert routes_json(None) is None
