"""How fast the samples of a bench are drawn, held against what was foretold."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dsr.bench.reason.batch_statistics import BatchStatistics
from dsr.bench.reason.bench import ReasonRequest
from dsr.loading.predict import Predictor
from dsr.store import paths, predictions
from runtime.engine.backend import Batch
from runtime.gguf.reader import read_card
from runtime.machine.machine import Device, Machine, Speed
from tests.dsr.bench.reason.reasoning import Fake, run
from tests.fakes import FakeBackend, saying


def foretold(fake: Fake, nano_path: Path) -> None:
    """The machine is known to compute nano at 20 GB/s."""
    speed = Speed(20e9, {}, {}, attention={"F16": 1e10}, per_layer=1e-5)
    machine = Machine("test", (Device("CPU", "cpu", 16 << 30, 16 << 30, speed),))
    fake.model = replace(fake.model, predictor=Predictor(read_card(nano_path), machine, 1000, 3, "f16", 100 << 20))


def test_how_fast_samples_were_drawn_is_held_against_what_was_foretold(
    fake: Fake, request_: ReasonRequest, nano_path: Path
) -> None:
    foretold(fake, nano_path)
    made = run(request_)
    assert made.run is not None
    assert (made.run.model, made.run.context, made.run.samples) == ("fake:1b", 1000, 3)
    assert made.run.predicted.memory == 100 << 20
    assert made.run.predicted.tokens_per_second > 0 and made.run.measured.tokens_per_second > 0
    [kept] = predictions.load(paths.predictions_file())
    assert replace(kept, disturbed=made.run.disturbed) == made.run  # other tests may run beside this one
    assert made.json()["prediction"]["predicted"] == asdict(made.run.predicted)
    assert run(request_).run is None  # nothing was left to draw
    assert run(request_).json()["prediction"] is None
    assert len(predictions.load(paths.predictions_file())) == 1


def test_what_a_strategy_draws_for_itself_counts_too(fake: Fake, request_: ReasonRequest, nano_path: Path) -> None:
    foretold(fake, nano_path)
    assert run(replace(request_, strategies=("tree",))).run is not None


def test_a_pass_of_the_engine_is_counted_by_its_size(nano_path: Path) -> None:
    speed = Speed(20e9, {}, {}, attention={"F16": 1e10}, per_layer=1e-5)
    machine = Machine("test", (Device("CPU", "cpu", 16 << 30, 16 << 30, speed),))
    forecast = Predictor(read_card(nano_path), machine, 1000, 3, "f16", 100 << 20)
    statistics = BatchStatistics(forecast)
    backend = FakeBackend(saying("x", after="q"), slots=3)
    watched = statistics.count_batches(backend)
    for position in range(40):
        batch = Batch()
        batch.add([ord("q")], position, 0, output=True)
        watched.decode(batch)
    with statistics.running():
        pass
    found = statistics.predicted_run("fake")
    assert found is not None
    # 40 tokens one after the other, with 0 to 39 before them.
    assert found.predicted.tokens_per_second == pytest.approx(40 / forecast.seconds([40], 0), rel=0.01)
    assert (backend.decoded, watched.context) == (40, 1000)
    assert BatchStatistics(None).predicted_run("fake") is None
