"""A plan that is written as a recipe and read again gives the same file."""

from __future__ import annotations

from pathlib import Path

from quant.recipe import recipe
from quant.recipe.mixtures import standard
from quant.recipe.saved import recipe_text
from quant.sources.gguf_source import GgufSource
from tests.quant.models import model


def test_a_saved_plan_gives_the_same_plan_again(tmp_path: Path) -> None:
    path = model(tmp_path / "model.gguf", layers=4, width=256, hidden=64)
    with GgufSource(path) as source:
        wanted = standard("q4_k_m", source)
        saved = tmp_path / "mine.toml"
        saved.write_text(recipe_text(wanted, 'so "good"', "[C] measured"), encoding="utf-8")
        found = recipe.plan(recipe.load(str(saved)), source)
    assert found.digest == wanted.digest
    loaded = recipe.load(str(saved))
    assert isinstance(loaded, recipe.Recipe)
    assert loaded.summary == 'so "good"'
    assert loaded.label.name == "q4_k_m"
    assert {rule.source for rule in loaded.rules} == {"[C] measured"}
