"""The divergences of a bench of experts: measured task after task, with the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime.llama
from dsr.bench.experts.cases import KINDS, Cases, digest
from dsr.bench.experts.kld import Divergences, measure_divergences
from quant.experts import prune_search
from quant.experts.profile import Profile
from quant.experts.prune_search import kld_curve
from quant.measure.calibrate import collect
from quant.measure.chunks import ChunkOptions, Text
from runtime.base.errors import Aborted
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card

TEXTS = {
    "sums": "".join(f"What is {n} plus {2 * n + 1}? {n} + {2 * n + 1} = {3 * n + 1}.\n" for n in range(40)),
    "words": "Tom has 3 red apples and gives 2 of them to Mary. The word backwards is sdrawkcab. " * 6,
}


@pytest.fixture(scope="module")
def cases(nano_path: Path) -> Cases:
    profiles = {}
    for task, text in TEXTS.items():
        found = collect(nano_path, [Text(task, text)], ChunkOptions(context=64), Run(threads=1))
        none = np.zeros((0, 4), np.float32)
        profiles[task] = Profile(task, found.routing, found.routed_tokens, 4, none, "a test", text)
    return Cases(read_card(nano_path), profiles, ("100%", "auto", "50%"), ("easy-ep",), KINDS, 0)


class Watched:
    """How often the model was opened, and which texts the whole model read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.recorded = 0, list[str]()
        opening, record = runtime.llama.MaskedScorer, prune_search.Base.record

        def opens(*arguments: Any, **options: Any) -> Any:
            self.opened += 1
            return opening(*arguments, **options)

        def records(base: Any, *arguments: Any, **options: Any) -> None:
            self.recorded.append(options["name"])
            record(base, *arguments, **options)

        monkeypatch.setattr(runtime.llama, "MaskedScorer", opens)
        monkeypatch.setattr(prune_search.Base, "record", records)


def test_the_model_is_opened_once_and_what_it_says_of_a_task_recorded_once(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, heard = Watched(monkeypatch), list[Event]()
    found = measure_divergences(cases, "router", Run(listen=heard.append, threads=1))
    assert watched.opened == 1
    # First for all tasks together, of whose texts less is read; then task after task.
    assert watched.recorded == [f"{task} with all experts" for task in ("sums", "words", "sums", "words")]
    cells = list(cases.all(found.automatic))
    assert {(case.task, digest(case.plan)) for case in cells} == found.divergences.keys()
    assert heard[-1] == Progress("measuring", "divergences", 36, 36, "steps")
    # As they are when each is measured alone.
    own = next(case for case in cells if (case.task, case.keep, case.kind) == ("words", "50%", "own"))
    [alone] = kld_curve(cases.card, [cases.profiles["words"]], [8], cache=tmp_path, run=Run(threads=1))
    assert found.divergences["words", digest(own.plan)] == alone.kld
    assert (
        measure_divergences(cases, "router", Run(threads=1)) == found and watched.opened == 2
    )  # once more for the curve


def test_stopped_it_goes_on_with_what_is_kept(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, stop = Watched(monkeypatch), Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.item == "divergences" and event.done == 20:
            stop.set()

    with pytest.raises(Aborted):
        measure_divergences(cases, "router", Run(stop, listen, threads=1))
    assert isinstance(measure_divergences(cases, "router", Run(threads=1)), Divergences)
    assert watched.recorded[4:] == ["words with all experts"]


def test_of_one_task_there_is_nothing_to_merge(cases: Cases) -> None:
    alone = Cases(cases.card, {"sums": cases.profiles["sums"]}, ("auto",), ("mass",), ("own", "random"), 0)
    found = measure_divergences(alone, "router", Run(threads=1))
    assert found.automatic["mass", ""] == alone.card.experts
    assert 4 <= found.automatic["mass", "sums"] <= 16
