"""Rounding stage by stage: the file comes nearer to the original, and has the same bytes however it is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quant.measure.chunks import Text
from quant.measure.cross_stages import CrossStages, NoStages
from quant.measure.moments import collect_moments
from quant.measure.texts import CALIBRATION
from quant.open_source import open_source
from quant.recipe.mixtures import standard, unquantized
from quant.round.moments import read_complete
from quant.round.plan import plan_rounding
from quant.sources.source import GgufSource
from quant.write.execute import prepare, quantize, write
from runtime.base.errors import Aborted
from runtime.base.events import Event, Listener, Progress, ignore
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card
from runtime.llama import Scorer
from tests.quant import tiny
from tests.quant.write.killed import kill_writers

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="weights are mapped on Linux alone")
FEW = 2  # conversations
COLLECTING = "collecting inputs of"


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The embedded model, and a folder with its moments."""
    path = Path(__file__).resolve().parents[3] / "dsr" / "data" / "nano.gguf"
    folder = tmp_path_factory.mktemp("moments")
    texts = CALIBRATION.each_for_model(read_card(path))[:FEW]
    collect_moments(path, "nano", texts, folder, Run(threads=1), context=512, memory=1 << 30)
    return path, folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of random weights, and a folder with its moments."""
    folder = tmp_path_factory.mktemp("small")
    tiny.llama(folder / "model")
    path = folder / "model.gguf"
    with open_source(folder / "model") as source:
        quantize(source, unquantized(source), path, Run(threads=1))
    texts = [Text("numbers", " ".join(map(str, range(400))))]
    collect_moments(path, "small", texts, folder / "moments", Run(threads=1), context=128, memory=1 << 30)
    return path, folder / "moments"


def written(
    model: tuple[Path, Path],
    out: Path,
    threads: int = 1,
    stop: Stop | None = None,
    listen: Listener = ignore,
    staged: bool = True,
    recipe: str = "q4_0",
) -> bytes:
    path, folder = model
    run = Run(stop or Stop(), listen, threads=threads)
    with GgufSource(path) as source:
        moments = read_complete(folder)
        plan = plan_rounding(standard(recipe, source), "best", datasets=(), weights=moments.weights)
        text = moments.text()
        assert text is not None
        stages = CrossStages(path, plan, text, 512)
        if staged:
            stages.check(1 << 30, run)
            assert stages.weights == {tensor.name for tensor in plan.tensors if tensor.rounding}
        job = prepare(source, plan, out, allow_requantize=True, moments=moments, stages=stages if staged else None)
        return write(job, run)[0].read_bytes()


def difference(one: Path, other: Path, text: tuple[int, ...]) -> float:
    """The squared difference of logits, each less the mean of its row."""
    found = []
    for path in (one, other):
        with Scorer(path, window=512) as model:
            rows = np.concatenate([block.copy() for block in model.score(text[:400])])
            found.append(rows - rows.mean(axis=1, keepdims=True))
    return float(np.square(found[0] - found[1]).mean())


def test_the_file_comes_nearer_to_the_original(nano: tuple[Path, Path], tmp_path: Path) -> None:
    files = tmp_path / "staged.gguf", tmp_path / "alone.gguf"
    assert len(written(nano, files[0], recipe="q2_k")) == len(written(nano, files[1], staged=False, recipe="q2_k"))
    text = read_complete(nano[1]).text()
    assert text is not None
    staged, alone = (difference(nano[0], each, text[0]) for each in files)
    assert staged < 0.6 * alone


def test_the_number_of_threads_changes_no_byte(small: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = (written(small, tmp_path / f"{threads}.gguf", threads) for threads in (1, 2))
    assert one == two


@pytest.mark.parametrize(("job", "share"), [("quantizing", 0.2), ("quantizing", 0.7), (COLLECTING, 0.5)])
def test_a_stopped_call_continues_with_the_same_bytes(
    small: tuple[Path, Path], tmp_path: Path, job: str, share: float
) -> None:
    stop = Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == job and event.done > share * event.total:
            assert job != COLLECTING or not stop.wanted  # nothing more is read
            stop.set()

    out = tmp_path / "out.gguf"
    with pytest.raises(Aborted):
        written(small, out, stop=stop, listen=listen)
    assert not out.exists()
    assert written(small, out) == written(small, tmp_path / "whole.gguf")


def test_progress_moves_with_each_pass_and_ends(small: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[Progress] = []
    written(
        small, tmp_path / "out.gguf", listen=lambda event: told.append(event) if isinstance(event, Progress) else None
    )
    collecting = [event for event in told if event.job == COLLECTING]
    assert [event.done for event in collecting] == sorted({event.done for event in collecting})
    assert len(collecting) > 16
    assert collecting[0].done == 0 and collecting[-1].finished
    assert {event.unit for event in collecting} == {"tokens"}


KILLED = """
import sys
from pathlib import Path
from tests.quant.measure.test_cross_stages import written
written((Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]), listen=lambda _: print(flush=True))
"""


def test_a_process_that_is_killed_leaves_nothing_wrong(small: tuple[Path, Path], tmp_path: Path) -> None:
    wanted = written(small, tmp_path / "wanted.gguf")
    out = tmp_path / "out.gguf"
    kill_writers(KILLED, [str(small[0]), str(small[1]), str(out)], out, wanted, times=3)
    assert out.exists() or written(small, out) == wanted


def no_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.measure.graph_cuts.Graph._is_cut", lambda graph, index: False)


def changing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.measure.graph_cuts.Graph.is_like", lambda graph, other: False)


def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.measure.cut_check.Rows.like", lambda rows, whole: False)


@pytest.fixture(params=[(no_cuts, "cannot be cut"), (changing, "changes with the text"), (wrong, "something else")])
def reason(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    change, why = request.param
    change(monkeypatch)
    yield why


def test_a_model_without_stages_says_why(nano: tuple[Path, Path], tmp_path: Path, reason: str) -> None:
    with pytest.raises(NoStages, match=reason):
        written(nano, tmp_path / "out.gguf")


def test_more_memory_than_allowed_is_not_taken(nano: tuple[Path, Path]) -> None:
    moments = read_complete(nano[1])
    with GgufSource(nano[0]) as source:
        plan = plan_rounding(standard("q2_k", source), "best", datasets=(), weights=moments.weights)
        stages = CrossStages(nano[0], plan, moments.text() or (), 512)
        with pytest.raises(NoStages, match=r"it needs [\d.]+ MiB, and 1\.00 MiB may be used"):
            stages.check(1 << 20, Run(threads=1))
