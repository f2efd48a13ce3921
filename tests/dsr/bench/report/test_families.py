"""What a report is made of: files with their rows, and families of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from dsr.bench.report.families import families
from dsr.bench.report.figures import share_interval
from dsr.bench.report.files import select
from dsr.store.measurement import Figure, Measurement, short_name
from runtime.base.errors import NotFound
from tests.dsr.bench.report.rows import ROWS, RUN, quality, row


def test_files_come_largest_first_with_their_rows() -> None:
    files = select(ROWS, ()).files
    assert [(file.name, len(file.rows)) for file in files] == [("nano", 12), ("q4", 1), ("q2", 1)]


def test_a_model_is_found_by_reference_file_name_and_digest() -> None:
    for named in ("nano", "q4.gguf", "q4", "/elsewhere/q4.gguf", "digest of q4"):
        [file] = select(ROWS, (), [named]).files
        assert file.name == ("nano" if named == "nano" else "q4")


def test_what_was_not_measured_is_told_with_what_was() -> None:
    with pytest.raises(NotFound, match=r"nothing was measured of qwq; there is nano, q2, q4") as caught:
        select(ROWS, (), ["nano", "qwq"])
    assert caught.value.hint == "dsr bench history"


def test_a_copy_of_a_model_goes_by_the_model_s_name() -> None:
    copy = replace(ROWS[0], model="nano", digest="same"), replace(ROWS[0], model="/m/nano-q8_0.gguf", digest="same")
    assert [file.name for file in select(copy, ()).files] == ["nano"]


def test_of_many_files_only_some_are_told() -> None:
    rows = [replace(ROWS[0], model=f"/m/{number}.gguf", digest=str(number)) for number in range(45)]
    with pytest.raises(NotFound, match=r"there is 44, 43, 42, 41, 40, 39, 38, 37 and 37 more$"):
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


# Families.


def against(model: str, reference: str, digest: str = "") -> Measurement:
    told = {"against": reference, **({"against_digest": digest} if digest else {})}
    return replace(quality(model, 0.1), parameters=told)


def related(rows: Sequence[Measurement]) -> dict[str, list[str]]:
    """The names of families with those of their members; a reference has a star."""
    found = families(select(rows, ()).files)
    return {
        family.name: [f"{member.short}{'*' if member.reference else ''}" for member in family.members]
        for family in found
    }


def test_a_family_is_what_was_measured_against_one_file_and_that_file() -> None:
    rows = [against(f"/m/x-f16-{quant}.gguf", "x-f16.gguf", "digest of /m/x-f16.gguf") for quant in ("q4_k_m", "q8_0")]
    rows += [row("speed", "tg128", {}, "/m/x-f16.gguf"), against("y.gguf", "other.gguf", "digest of other")]
    assert related(rows) == {"x": ["F16*", "Q4_K_M", "Q8_0"], "y": ["y"]}


def test_a_file_is_called_by_what_differs() -> None:
    names = ("a-b", "a-b-Q4_K_M-fixed", "a-b-moe-q4", "a-b-ud-iq1_s")
    rows = [against(f"{name}.gguf", "base.gguf") for name in names]
    assert related(rows) == {"a-b": ["a-b", "Q4_K_M-fixed", "moe-q4", "UD-IQ1_S"]}


def test_names_that_share_nothing_stay_whole() -> None:
    rows = [against(f"{name}.gguf", "/m/base.gguf") for name in ("one", "two")]
    assert related(rows) == {"base": ["one", "two"]}


def test_the_same_recipe_of_different_names_is_told_apart() -> None:
    rows = [against(f"{name}.gguf", "f16.gguf") for name in ("x-q4_0", "x.q4_0", "x-q8_0")]
    assert related(rows) == {"x": ["x-q4_0", "Q8_0", "x.q4_0"]}


def test_a_reference_stays_with_its_own_even_when_it_was_measured_against_another() -> None:
    rows = [
        against("x-q8_0.gguf", "x-f16.gguf", "digest of x-f16.gguf"),
        against("x-f16.gguf", "x-bf16.gguf", "digest of x-bf16.gguf"),
    ]
    assert related(rows) == {"x": ["F16*", "Q8_0"]}


def test_families_of_one_name_are_told_apart() -> None:
    rows = [against(f"x-q{bits}_0.gguf", f"{bits % 2}.gguf", f"digest {bits % 2}") for bits in (2, 3, 4, 5)]
    assert related(rows) == {"x-q2_0": ["Q2_0", "Q4_0"], "x-q3_0": ["Q3_0", "Q5_0"]}
