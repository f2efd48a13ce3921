"""Families: files that were measured against the same reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsr.bench.report.families import families
from dsr.bench.report.files import select
from dsr.store.measurement import Measurement
from tests.dsr.bench.report.rows import quality, row


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
