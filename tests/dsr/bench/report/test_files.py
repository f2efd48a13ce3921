"""The input of a report: files with their rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsr.bench.report.figures import share_interval
from dsr.bench.report.files import select
from dsr.store.measurement import Figure, short_name
from runtime.base.errors import NotFound
from tests.dsr.bench.report.rows import ROWS, RUN


def test_files_come_largest_first_with_their_rows() -> None:
    files = select(ROWS, ()).files
    assert [(file.name, len(file.rows)) for file in files] == [("nano", 12), ("q4", 1), ("q2", 1)]


def test_a_model_is_found_by_reference_file_name_and_digest() -> None:
    for named in ("nano", "q4.gguf", "q4", "/elsewhere/q4.gguf", "digest of q4"):
        [file] = select(ROWS, (), [named]).files
        assert file.name == ("nano" if named == "nano" else "q4")


def test_what_was_not_measured_is_told_with_what_was() -> None:
    with pytest.raises(NotFound, match=r"qwq was not measured; measured models: nano, q2, q4") as caught:
        select(ROWS, (), ["nano", "qwq"])
    assert caught.value.hint == "dsr bench history"


def test_a_copy_of_a_model_goes_by_the_model_s_name() -> None:
    copy = replace(ROWS[0], model="nano", digest="same"), replace(ROWS[0], model="/m/nano-q8_0.gguf", digest="same")
    assert [file.name for file in select(copy, ()).files] == ["nano"]


def test_of_many_files_only_some_are_told() -> None:
    rows = [replace(ROWS[0], model=f"/m/{number}.gguf", digest=str(number)) for number in range(45)]
    with pytest.raises(NotFound, match=r"measured models: 44, 43, 42, 41, 40, 39, 38, 37 and 37 more$"):
        select(rows, (), ["qwq"])


def test_two_files_of_one_name_are_told_apart() -> None:
    other = replace(ROWS[0], model="/other/q4.gguf", digest="abcdef123")
    assert [file.name for file in select([ROWS[0], other], ()).files] == ["q4 (abcdef)", "q4 (digest)"]


def test_runs_of_other_models_are_left_out_only_when_models_are_named() -> None:
    runs = [RUN, replace(RUN, model="other")]
    assert select(ROWS, runs).runs == tuple(runs)
    assert select(ROWS, runs, ["nano"]).runs == (RUN,)


@pytest.mark.parametrize(
    ("model", "name"),
    [("nano", "nano"), ("/a/b/x-Q4_K_M.GGUF", "x-Q4_K_M"), ("C:\\m\\x.gguf", "x"), ("org/repo:q4", "org/repo:q4")],
)
def test_short_names(model: str, name: str) -> None:
    assert short_name(model) == name


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Wilson for 9 of 10: 0.5958 to 0.9821.
    low, high = share_interval(Figure(0.9, None, 10))
    assert (round(low, 4), round(high, 4)) == (0.5958, 0.9821)
    # Rows keep half of the interval over 1.96; so it comes back as it was, whatever the count says.
    kept = Figure(0.9, (0.9821 - 0.5958) / 2 / 1.96, 99)
    assert share_interval(kept) == pytest.approx((0.5958, 0.9821), abs=1e-4)
