"""The words of `dsr quantize`, also in llama-quantize's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.quantize.arguments import Arguments, in_order, recipe_named
from runtime.base.errors import UsageError


def understood(
    line: str, *, out: str | None = None, recipe: str | None = None, threads: int | None = None
) -> Arguments:
    words = line.split()
    first = Path(words[0]) if words else None
    return in_order(first, words[1:], out_option=Path(out) if out else None, recipe=recipe, threads=threads)


@pytest.mark.parametrize(
    ("line", "out", "recipe", "threads"),
    [
        ("", None, None, None),
        ("out.gguf", "out.gguf", None, None),
        ("out.gguf Q4_K_M", "out.gguf", "q4_k_m", None),
        ("out.gguf Q4_K_M 8", "out.gguf", "q4_k_m", 8),
        ("Q4_K_M", None, "q4_k_m", None),
        ("q4_k 4", None, "q4_k_m", 4),
        ("out.gguf 15", "out.gguf", "q4_k_m", None),
        ("out.gguf moe-q4", "out.gguf", "moe-q4", None),
        ("out", "out", None, None),
    ],
)
def test_the_order_of_llama_quantize(line: str, out: str | None, recipe: str | None, threads: int | None) -> None:
    assert understood(line) == Arguments(None if out is None else Path(out), recipe, threads)


def test_options_mean_the_same() -> None:
    assert understood("", out="a.gguf", recipe="q8_0", threads=2) == Arguments(Path("a.gguf"), "q8_0", 2)
    assert understood("a.gguf Q8_0", out="a.gguf", recipe="q8_0") == Arguments(Path("a.gguf"), "q8_0", None)


@pytest.mark.parametrize(
    ("line", "options", "problem"),
    [
        ("a.gguf", {"out": "b.gguf"}, "two files to write were named: a.gguf and b.gguf"),
        ("a.gguf Q4_K_M", {"recipe": "q8_0"}, "two recipes were named: Q4_K_M and q8_0"),
        ("a.gguf q4_k_mm", {}, "does not understand 'q4_k_mm'"),
        ("a.gguf COPY", {}, "dsr copies no file"),
        ("a.gguf q4_0 x", {}, "does not understand 'x'"),
    ],
)
def test_words_that_contradict_are_refused(line: str, options: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        understood(line, **options)  # type: ignore[arg-type]


def test_a_recipe_by_name_or_number() -> None:
    assert [recipe_named(each) for each in ("Q3_K", "2", "32", "99", "x")] == ["q3_k_m", "q4_0", "bf16", None, None]
