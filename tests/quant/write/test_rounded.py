"""Writing a file whose errors of rounding are corrected: less loss, and the same bytes however it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.measure.moments import collect_moments
from quant.measure.texts import CALIBRATION
from quant.plan import Effort, QuantPlan
from quant.recipe.mixtures import standard
from quant.round.moments import Moments, read_complete
from quant.round.plan import plan_rounding
from quant.sources.source import GgufSource, Source, TensorSpec
from quant.write.execute import prepare, write
from runtime.base.errors import Aborted, UsageError
from runtime.base.events import Event, Listener, Progress, ignore
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card
from runtime.gguf.types import BY_NAME
from runtime.llama import dequantize_rows, quantize_rows
from tests.quant.write.killed import kill_writers

FEW = 2  # conversations: some experts see no token


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The embedded model, and a folder with its moments."""
    path = Path(__file__).resolve().parents[3] / "dsr" / "data" / "nano.gguf"
    folder = tmp_path_factory.mktemp("moments")
    texts = CALIBRATION.each_for_model(read_card(path))[:FEW]
    collect_moments(path, "nano", texts, folder, Run(threads=1), context=512, memory=1 << 30)
    return path, folder


def rounded_plan(source: Source, moments: Moments, name: str = "q3_k_m", effort: Effort = "fast") -> QuantPlan:
    return plan_rounding(standard(name, source), effort, datasets=(), weights=moments.weights)


def written(
    nano: tuple[Path, Path],
    out: Path,
    threads: int = 1,
    stop: Stop | None = None,
    listen: Listener = ignore,
    recipe: str = "q3_k_m",
    effort: Effort = "fast",
) -> bytes:
    path, folder = nano
    with GgufSource(path) as source:
        moments = read_complete(folder)
        plan = rounded_plan(source, moments, recipe, effort)
        job = prepare(source, plan, out, allow_requantize=True, moments=moments)
        return write(job, Run(stop or Stop(), listen, threads=threads))[0].read_bytes()


def rows_of(path: Path, name: str) -> tuple[TensorSpec, NDArray[np.float32], NDArray[np.uint8]]:
    with GgufSource(path) as source:
        tensor = next(each for each in source.tensors if each.name == name)
        return tensor, source.read(tensor, 0, tensor.rows), source.stored_rows(tensor, 0, tensor.rows)


def test_outputs_lose_less_at_the_same_size(nano: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    written(nano, out)
    moments = read_complete(nano[1])
    for name in ("blk.1.attn_output.weight", "blk.0.ffn_down.weight", "output.weight"):
        moment = moments.of(name, 0)
        assert moment is not None
        _, weights, _ = rows_of(nano[0], name)
        tensor, values, stored = rows_of(out, name)
        number = BY_NAME[tensor.stored].number
        plain = dequantize_rows(number, quantize_rows(number, weights))
        assert stored.shape == quantize_rows(number, weights).shape
        losses = [
            float(np.einsum("rc,rc->", error @ moment.damped, error)) for error in (weights - plain, weights - values)
        ]
        assert losses[1] < 0.97 * losses[0]  # two conversations tell little of what goes together


def test_experts_without_tokens_keep_the_engines_rounding(nano: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    written(nano, out)
    name = "blk.2.ffn_up_exps.weight"
    part = next(part for part in read_complete(nano[1]).index.parts if name in part.weights)
    _, weights, _ = rows_of(nano[0], name)
    tensor, _, stored = rows_of(out, name)
    height = tensor.rows // tensor.slices
    plain = quantize_rows(BY_NAME[tensor.stored].number, weights)
    same = [
        np.array_equal(plain[e * height : (e + 1) * height], stored[e * height : (e + 1) * height]) for e in range(16)
    ]
    assert same == [count == 0 for count in part.counts]
    assert 0 < sum(same) < 16


@pytest.mark.parametrize(("recipe", "effort"), [("q3_k_m", "best"), ("q4_0", "fast")])
def test_the_number_of_threads_changes_no_byte(
    nano: tuple[Path, Path], tmp_path: Path, recipe: str, effort: Effort
) -> None:
    one, two, three = (
        written(nano, tmp_path / f"{threads}.gguf", threads, recipe=recipe, effort=effort) for threads in (1, 2, 3)
    )
    assert one == two
    assert one == three


def test_a_stopped_call_continues_with_the_same_bytes(nano: tuple[Path, Path], tmp_path: Path) -> None:
    stop = Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "quantizing" and event.done > event.total / 2:
            stop.set()

    out = tmp_path / "out.gguf"
    with pytest.raises(Aborted):
        written(nano, out, stop=stop, listen=listen)
    assert not out.exists()
    assert written(nano, out) == written(nano, tmp_path / "whole.gguf")


KILLED = """
import sys
from pathlib import Path
from tests.quant.write.test_rounded import written
written((Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]), listen=lambda _: print(flush=True))
"""


def test_a_process_that_is_killed_leaves_nothing_wrong(nano: tuple[Path, Path], tmp_path: Path) -> None:
    wanted = written(nano, tmp_path / "wanted.gguf")
    out = tmp_path / "out.gguf"
    kill_writers(KILLED, [str(nano[0]), str(nano[1]), str(out)], out, wanted, times=3)
    assert out.exists() or written(nano, out) == wanted


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("quant.round.moments.MomentsIndex.digest", property(lambda index: "another")),
        ("quant.round.rounding.VERSION", 0),
    ],
)
def test_moments_of_another_text_and_another_version_begin_the_work_again(
    nano: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, other: object
) -> None:
    out, stop = tmp_path / "out.gguf", Stop()
    found: list[str] = []

    def stopping(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "quantizing" and event.done > event.total / 2:
            stop.set()

    def hearing(event: Event) -> None:
        found.append(str(event))

    with pytest.raises(Aborted):
        written(nano, out, stop=stop, listen=stopping)
    monkeypatch.setattr(place, other)
    written(nano, out, listen=hearing)
    assert any("the work starts again" in each for each in found)


def test_a_plan_that_corrects_needs_moments(nano: tuple[Path, Path], tmp_path: Path) -> None:
    with GgufSource(nano[0]) as source:
        plan = rounded_plan(source, read_complete(nano[1]))
        with pytest.raises(UsageError, match="second moments"):
            prepare(source, plan, tmp_path / "out.gguf", allow_requantize=True)
