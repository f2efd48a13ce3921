"""The arguments of `dsr quantize`, also in llama-quantize's order: IN [OUT] TYPE [THREADS]. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quant.recipe.mixtures import MIXTURES
from quant.recipe.recipe import names
from runtime.base.errors import UsageError

# Names of llama-quantize for mixtures (tools/quantize/quantize.cpp, QUANT_OPTIONS).
_ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the words mean: the file to write, the recipe and the number of threads; None where none is given."""

    out: Path | None
    recipe: str | None
    threads: int | None


def in_order(
    out: Path | None, more: Sequence[str], *, out_option: Path | None, recipe: str | None, threads: int | None
) -> Arguments:
    """The words behind SRC with the options. Raises UsageError for words that nothing takes, or that contradict."""
    words = [*([] if out is None else [str(out)]), *more]
    given, kind, count = out_option, recipe, threads
    if words and _is_file(words[0]):
        if out_option is not None and str(out_option) != words[0]:
            raise UsageError(f"two files to write were named: {words[0]} and {out_option}")
        given = Path(words.pop(0))
    if words and (named := recipe_named(words[0])) is not None:
        if recipe is not None and recipe.lower() != named:
            raise UsageError(f"two recipes were named: {words[0]} and {recipe}", hint="name one of them")
        kind = named
        words.pop(0)
        if words and words[0].isdecimal() and int(words[0]) > 0:
            count = threads or int(words.pop(0))
    if words and words[0].upper() == "COPY":
        raise UsageError("dsr copies no file", hint="to copy one: cp IN OUT")
    if words:
        near = difflib.get_close_matches(words[0].lower(), names(), n=1)
        order = "the order is dsr quantize SRC [OUT] [RECIPE]; the recipes: dsr quantize --list-recipes"
        raise UsageError(
            f"dsr quantize does not understand {words[0]!r}: it is no recipe",
            hint=f"did you mean {near[0]}?" if near else order,
        )
    return Arguments(given, kind, count)


def recipe_named(word: str) -> str | None:
    """The recipe of a word: its name in any case, or the number of llama_ftype that llama-quantize takes, too."""
    key = _ALIASES.get(word.lower(), word.lower())
    if key in names():
        return key
    numbers = {str(mixture.file_type): mixture.name for mixture in MIXTURES.values()}
    return numbers.get(word)


def _is_file(word: str) -> bool:
    """Whether the first word is the file to write; a wrong name gets its error later, where it is checked."""
    return recipe_named(word) is None
