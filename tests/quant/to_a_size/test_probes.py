"""Divergences of plans, measured by replacing tensors in the memory of the real engine, and of their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quant.measure.chunks import Text
from quant.plan import QuantPlan, make_plan, planned
from quant.recipe.mixtures import kept_type, quantizable, unquantized
from quant.sources.source import GgufSource
from quant.to_a_size.allocate import plan_of_size
from quant.to_a_size.losses import measure_losses
from quant.to_a_size.probes import Probes
from quant.to_a_size.search import best_of_size, most_probes
from quant.write.execute import quantize
from runtime.base.errors import Aborted, DsrError
from runtime.base.run import Run, Stop

TEXT = Text("text", "What is 12 + 30? Let me add column by column. 2 + 0 = 2, 1 + 3 = 4. The answer is 42. " * 4)
RUN = Run(threads=1)


@pytest.fixture(scope="module")
def source_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano in F16, as original weights are."""
    path = tmp_path_factory.mktemp("source") / "nano.gguf"
    with GgufSource(Path(__file__).resolve().parents[3] / "dsr" / "data" / "nano.gguf") as source:
        tensors = [planned(each, "F16" if quantizable(each) else kept_type(each), "test") for each in source.tensors]
        quantize(source, make_plan(tensors, source, 1), path, RUN, allow_requantize=True)
    return path


def plan_in(source: GgufSource, kind: str, *but: str) -> QuantPlan:
    tensors = [
        planned(each, kind if quantizable(each) and each.name not in but else kept_type(each), "test")
        for each in source.tensors
    ]
    return make_plan(tensors, source, 2)


def probes_of(source: GgufSource, cache: Path, run: Run = RUN) -> Probes:
    return Probes(source, None, [TEXT], 120, cache, run)


def test_tensors_are_replaced_and_given_back(source_path: Path, tmp_path: Path) -> None:
    with GgufSource(source_path) as source, probes_of(source, tmp_path) as probes:
        coarse, finer = plan_in(source, "Q4_0"), plan_in(source, "Q5_0")
        everything = [each.name for each in source.tensors]
        attention = [name for name in everything if "attn" in name]
        assert probes.of_tensors(coarse, []) < 1e-6
        of_attention = probes.of_tensors(coarse, attention)
        of_all = probes.of_tensors(coarse, everything)
        assert 1e-4 < of_attention < of_all
        assert probes.of_tensors(finer, everything) < 0.9 * of_all
        # The file computes with activations of 8 bits, too.
        assert probes.of_file(coarse) == pytest.approx(of_all, rel=0.2)
        probes._known.path.unlink()
        probes._known._put.clear()
        assert probes.of_tensors(coarse, attention) == pytest.approx(of_attention, rel=1e-6)
        assert probes.of_tensors(coarse, []) < 1e-6
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]  # nothing temporary is left


def test_known_figures_open_no_model(source_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with GgufSource(source_path) as source:
        plan = plan_in(source, "Q4_0")
        with probes_of(source, tmp_path) as probes:
            found = probes.of_tensors(plan, ["output.weight"])
        [cache] = tmp_path.iterdir()
        assert list(json.loads(cache.read_text()).values()) == [found]

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("measured again")

        monkeypatch.setattr("runtime.llama.EditedScorer", refuse)
        with probes_of(source, tmp_path) as probes:
            assert probes.of_tensors(plan, ["output.weight"]) == found
            assert probes.of_tensors(plan_in(source, "Q4_0", "token_embd.weight"), ["output.weight"]) == found
            with pytest.raises(AssertionError, match="measured again"):
                probes.of_tensors(plan, ["token_embd.weight"])


def test_quantized_weights_and_a_tied_embedding_are_replaced_too(tmp_path: Path) -> None:
    nano = Path(__file__).resolve().parents[3] / "dsr" / "data" / "nano.gguf"
    with GgufSource(nano) as source, probes_of(source, tmp_path / "one") as probes:
        assert probes.of_tensors(unquantized(source), ["output.weight"]) < 1e-6
        assert probes.of_tensors(plan_in(source, "Q4_0"), ["output.weight"]) > 1e-4


def test_a_stop_is_answered(source_path: Path, tmp_path: Path) -> None:
    stop = Stop()
    with GgufSource(source_path) as source, probes_of(source, tmp_path, Run(stop, threads=1)) as probes:
        probes.of_tensors(plan_in(source, "Q4_0"), ["output.weight"])
        stop.set()
        with pytest.raises(Aborted):
            probes.of_tensors(plan_in(source, "Q4_0"), ["token_embd.weight"])


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(source_path: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with (
        GgufSource(source_path) as source,
        probes_of(source, tmp_path / "cache") as probes,
        pytest.raises(DsrError, match=r"/cache/nano-[0-9a-f]{16}\.json: cannot be written: "),
    ):
        probes.of_tensors(plan_in(source, "Q4_0"), ["output.weight"])


def test_small_models_get_more_probes() -> None:
    assert most_probes(12_000_000, 2048) == 64
    assert most_probes(135_000_000, 2048) == 14
    assert most_probes(7_000_000_000, 2048) == 8


def test_the_best_of_a_size_is_measured_and_loses_less_than_by_losses_alone(
    source_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quant.to_a_size.losses._SAMPLE", 1 << 12)
    monkeypatch.setattr("quant.to_a_size.losses.CANDIDATES", ("Q2_K", "Q4_0", "Q4_K", "Q6_K"))
    monkeypatch.setattr("quant.to_a_size.search._MOST_PROBES", 17)
    with GgufSource(source_path) as source, probes_of(source, tmp_path) as probes:
        losses = measure_losses(source, None, tmp_path / "losses", RUN)
        found = best_of_size(source, 5_500_000, losses, probes, lambda plan: plan, RUN)
        assert found.plan.bytes <= 5_500_000
        assert found.predicted_kld == probes.of_file(found.plan)
        assert found.predicted_kld < 0.8 * probes.of_file(plan_of_size(source, 5_500_000, losses).plan)
