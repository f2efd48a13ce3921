"""How large a file may be, and what is planned where the model cannot be evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.quantize.decide import SizeTarget, budget_of, decide_size
from dsr.quantize.quantize import save_recipe
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


def test_what_does_not_fit_in_memory_is_planned_by_errors_alone(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DoesNotFit("no room")

    monkeypatch.setenv("DSR_HOME", str(tmp_path))
    monkeypatch.setattr("quant.to_a_size.sensitivity.measure", refuse)
    monkeypatch.setattr(
        "quant.to_a_size.type_errors.CANDIDATES", ("Q2_K", "Q4_K", "Q6_K", "Q8_0")
    )  # others are slow to begin
    heard: list[Event] = []
    with GgufSource(path) as source:
        decided = decide_size(source, SizeTarget(bits_per_weight=6.5), Run(listen=heard.append, threads=1))
        assert decided.predicted_kld is None
        assert any("not measured on the model" in warning for warning in decided.warnings)
        assert any(isinstance(event, Notice) and "no room" in event.text for event in heard)
        assert 6 < decided.plan.bits_per_weight <= 6.5
        out = tmp_path / "mine.toml"
        save_recipe(out, decided)
    said = out.read_text(encoding="utf-8")
    assert 'summary = "model at 6' in said
    assert 'source = "[C] dsr quantize: errors of types measured on this model"' in said
