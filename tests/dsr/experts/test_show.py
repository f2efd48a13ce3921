"""`dsr experts show`: coverage, overlap and maps of stored profiles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dsr.commands.experts import app
from dsr.experts import show
from dsr.experts.profile import profile_store
from dsr.ui.charts.heat_map import HeatMap
from quant.experts.profile import Profile, router_digest
from quant.measure.imatrix import Routing
from runtime.base.errors import BadModelFile, Incompatible, NotFound, UsageError
from tests.quant.models import model

run = CliRunner().invoke


def routing(*weights: float) -> Routing:
    given = np.array(weights, np.float64)
    return Routing((given > 0).astype(np.int64), given, given, given, given)


def profile(task: str, *layers: Routing, questions: int = 2) -> Profile:
    keys = np.zeros((questions, 2), np.float32)
    return Profile(task, dict(enumerate(layers, 1)), 1000, 1, keys, "made up", "text")


# Of four experts: one has everything; or all have something.
NARROW, WIDE = routing(0, 9, 0, 0), routing(4, 1, 2, 3)


@pytest.fixture
def nano_tasks(nano_path: Path) -> str:
    """Two tasks of the embedded model: `even` spreads over all experts, `one` needs four in each layer."""
    digest, store = router_digest(nano_path), profile_store()
    even, one = routing(*[1] * 16), routing(*[5] * 4, *[0] * 12)
    store.put(digest, profile("even", even, even, even, questions=0))
    store.put(digest, profile("one", one, one, one))
    return digest


def test_coverage_is_the_share_of_the_best_experts() -> None:
    layers = show.task_of(profile("t", NARROW, WIDE)).layers
    assert layers[1].coverage == (1.0, 1.0, 1.0)
    assert layers[2].coverage == pytest.approx((0.4, 0.7, 0.9))
    assert (layers[1].unreached, layers[2].unreached) == ((0, 2, 3), ())
    assert show.task_of(profile("t", NARROW, WIDE)).coverage == pytest.approx((0.7, 0.85, 0.95))


def test_fractions_are_rounded_up_to_whole_experts() -> None:
    layers = show.task_of(profile("t", routing(5, 3, 2))).layers
    assert layers[1].coverage == pytest.approx((0.5, 0.8, 1.0))


def test_without_weights_choices_are_counted_and_without_choices_there_is_nothing() -> None:
    chosen = Routing(np.array([3, 1], np.int64), np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2))
    assert show.shares(chosen).tolist() == [0.75, 0.25]
    assert show.shares(Routing.empty(2)).tolist() == [0, 0]


def test_overlap_is_the_share_of_a_task_on_the_best_half_of_another() -> None:
    tasks = [show.task_of(profile("a", NARROW)), show.task_of(profile("b", WIDE))]
    # The best half of a is experts 1 and 0 (of equals the first), of b it is 0 and 3.
    assert [[round(value, 6) for value in row] for row in show.overlap(tasks)] == [[1.0, 0.0], [0.5, 0.7]]


def test_heat_is_the_mean_of_the_tasks_as_multiples_of_an_even_share() -> None:
    tasks = [show.task_of(profile("a", NARROW)), show.task_of(profile("b", routing(1, 1, 1, 1)))]
    assert show.heat_map(tasks) == HeatMap("all tasks", (("layer 1", (0.5, 2.5, 0.5, 0.5)),))


def test_many_experts_are_counted_and_not_named() -> None:
    assert show.experts_in_words(()) == "none"
    assert show.experts_in_words((3, 9)) == "3, 9"
    assert show.experts_in_words(range(20)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more"


def test_all_tasks_are_shown(nano_tasks: str) -> None:
    done = run(app, ["show", "nano"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "task  questions  tokens  best 25%  best 50%  best 75%  never used",
        "even       text    1000     25.0%     50.0%     75.0%     0 of 48",
        "one           2    1000    100.0%    100.0%    100.0%    36 of 48",
        "",
        "            1     2",
        "1  even   50%   50%",
        "2  one   100%  100%",
        "",
        "         0       2       4       6       8       10      12      14",
        *(f"layer {number} │{'*' * 16}{'=' * 48}│" for number in (1, 2, 3)),
        ". less  : 1/8  - 1/4  = 1/2  + 1  * 2  # 4  % 8  @ 16  blank: never",
    ]
    assert "nano: 2 tasks, 16 experts in each of 3 layers, 4 for each token" in done.stderr


def test_one_task_is_shown_layer_by_layer(nano_tasks: str) -> None:
    done = run(app, ["show", "nano", "one"])
    assert done.stdout.splitlines()[:2] == [
        "layer  best 25%  best 50%  best 75%  never used",
        "    1    100.0%    100.0%    100.0%  4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    ]
    assert done.stdout.splitlines()[-2] == f"layer 3 │{'#' * 16}{' ' * 48}│"


def test_json_has_every_expert(nano_tasks: str) -> None:
    said = json.loads(run(app, ["show", "nano", "--json"]).stdout)
    assert {key: said[key] for key in ("schema", "model", "digest", "experts", "active", "overlap", "problems")} == {
        "schema": "dsr.experts.show/1",
        "model": "nano",
        "digest": nano_tasks,
        "experts": 16,
        "active": 4,
        "overlap": [[0.5, 0.5], [1.0, 1.0]],
        "problems": [],
    }
    even, one = said["tasks"]
    assert (even["task"], even["questions"], even["coverage"]) == ("even", 0, [0.25, 0.5, 0.75])
    assert [row["layer"] for row in one["layers"]] == [1, 2, 3]
    assert one["layers"][0]["shares"] == [0.25] * 4 + [0.0] * 12
    assert one["layers"][0]["selected"] == [1] * 4 + [0] * 12
    assert one["layers"][0]["unreached"] == list(range(4, 16))


def test_quiet_names_the_tasks(nano_tasks: str) -> None:
    assert run(app, ["show", "nano", "--quiet"]).stdout == "even\none\n"


def test_a_broken_profile_does_not_hide_the_others(nano_tasks: str) -> None:
    profile_store().path(nano_tasks, "one").write_bytes(b"GGUF")
    done = run(app, ["show", "nano"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].startswith("even")
    assert "one.gguf" in done.stderr
    failed = run(app, ["show", "nano", "one"])
    assert isinstance(failed.exception, BadModelFile)
    assert failed.exception.hint == "make it again: dsr experts profile MODEL --task NAME --force"


def test_a_profile_of_another_shape_is_refused(nano_tasks: str) -> None:
    profile_store().put(nano_tasks, profile("two", routing(1, 2), routing(2, 1)))
    failed = run(app, ["show", "nano", "two"])
    assert isinstance(failed.exception, Incompatible)
    assert "is of 2 layers with 2 experts, the model has 3 with 16" in failed.exception.message


def test_without_a_profile_the_hint_names_the_command() -> None:
    failed = run(app, ["show", "nano"])
    assert isinstance(failed.exception, NotFound)
    assert failed.exception.hint == "make one: dsr experts profile nano"


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    failed = run(app, ["show", str(model(tmp_path / "dense.gguf"))])
    assert isinstance(failed.exception, Incompatible)


def test_the_maps_are_drawn(nano_tasks: str, tmp_path: Path) -> None:
    done = run(app, ["show", "nano", "--plot", str(tmp_path / "map.svg")])
    assert done.exit_code == 0, done.output
    content = (tmp_path / "map.svg").read_text(encoding="utf-8")
    assert content.startswith("<svg ")
    assert all(f">{text}</text>" in content for text in ("even", "one", "layer 3", "never"))


def test_a_picture_that_is_not_svg_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    failed = run(app, ["show", str(tmp_path / "missing.gguf"), "--plot", "map.png"])
    assert isinstance(failed.exception, UsageError)
    assert failed.exception.message == "map.png: a plot is written as SVG only"
