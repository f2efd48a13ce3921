"""How large a file may be, and the plan for a model that cannot be evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.quantize.quantize import save_recipe
from dsr.quantize.size import SizeTarget, budget_of, decide_size
from quant.recipe.mixtures import unquantized
from quant.sources.source import GgufSource
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import Event, Notice
from runtime.base.run import Run
from tests.quant.models import model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("models") / "model.gguf", layers=1, width=256, hidden=64)


@pytest.mark.parametrize(
    "given", [{}, {"bits_per_weight": 3.0, "fit": True}, {"bytes": 1, "fit": True}, {"bits_per_weight": 0.0}]
)
def test_exactly_one_size_is_asked_for(given: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        SizeTarget(**given)  # type: ignore[arg-type]


def test_the_name_of_a_file_says_its_size() -> None:
    assert SizeTarget(bits_per_weight=3.5).name == "3.5bpw"
    assert SizeTarget(bytes=12 << 30).name == "12.0GiB"
    assert SizeTarget(fit=True).name == "fit"


def test_bits_per_weight_are_those_of_the_weights_without_header(path: Path) -> None:
    with GgufSource(path) as source:
        whole = unquantized(source)
    header = whole.bytes - sum(tensor.bytes for tensor in whole.tensors)
    assert budget_of(SizeTarget(bits_per_weight=16), whole) == 2 * whole.parameters + header
    assert budget_of(SizeTarget(bytes=1234), whole) == 1234


def test_a_model_that_cannot_be_evaluated_is_planned_by_losses_alone(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DoesNotFit("no room")

    monkeypatch.setenv("DSR_HOME", str(tmp_path))
    monkeypatch.setattr("quant.to_a_size.search.best_of_size", refuse)
    monkeypatch.setattr("dsr.quantize.moments.moments_of", refuse)
    monkeypatch.setattr(
        "quant.to_a_size.losses.CANDIDATES", ("Q2_K", "Q4_K", "Q6_K", "Q8_0")
    )  # others are slow to begin
    heard: list[Event] = []
    with GgufSource(path) as source:
        run = Run(listen=heard.append, threads=1)
        with pytest.raises(DoesNotFit, match="no room"):  # asked for
            decide_size(source, SizeTarget(bits_per_weight=6.5), run, effort="best")
        found = decide_size(source, SizeTarget(bits_per_weight=6.5), run, effort=None)
        decided = found.decision
        assert found.moments is None and decided.predicted_kld is None
        assert any("not measured on the model" in warning for warning in decided.warnings)
        notices = [event.text for event in heard if isinstance(event, Notice)]
        assert notices == [
            "errors of rounding are not corrected: no room",
            "the divergence cannot be measured: no room",
        ]
        assert 6 < decided.plan.bits_per_weight <= 6.5
        out = tmp_path / "mine.toml"
        save_recipe(out, decided)
    said = out.read_text(encoding="utf-8")
    assert 'summary = "model at 6' in said
    assert 'source = "[C] dsr quantize: losses of types measured on this model"' in said
