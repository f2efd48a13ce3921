"""Decides which files of a repository to take, from its listing. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsr.models.catalog import CatalogEntry, load
from dsr.models.gguf_names import QuantChoice, is_model_file, quant_of, same_quant
from dsr.models.reach import DEFAULT_CONTEXT
from quant.sources.weight_files import PICKLES, index_of, is_raw_part, settings_in, weight_files
from runtime.base.errors import DoesNotFit, Incompatible, NotFound
from runtime.base.types import ByteCount, counted, listed

# A quantization is chosen for the first of these contexts that fits.
CONTEXTS = (DEFAULT_CONTEXT, 8192)

# The memory beyond the weights at the shorter context, where only the size of the weights is known: a fifth of it, at
# least 512 MiB. R1-Distill-Qwen-7B at Q4_K_M needs 17 % for 8k.
_BEYOND_WEIGHTS_DIVISOR = 5
_BEYOND_WEIGHTS_LEAST = 512 << 20

FAST = 20.0  # tokens per second: a thought of 1000 tokens takes 50 s; faster pays little
_FAR_SLOWER = 2.0  # times: not even a fast one may be so much slower, such as beside a GPU that has room for less
_MUCH_FASTER = 1.2  # times: a smaller quantization must be so much faster
_GOOD_BITS = 4  # below, answers get worse quickly (docs/results.md)
_USUAL = "Q4_K_M"

_UNQUANTIZED = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True)
class QuantDecision:
    choice: QuantChoice
    why: str


def choose_quant(
    choices: Sequence[QuantChoice],
    available: int,
    beyond_weights: Callable[[QuantChoice, int], int],
    contexts: Sequence[int] = CONTEXTS,
    speed: Callable[[QuantChoice, int], float] | None = None,
) -> QuantDecision:
    """The quantization to prefer of those that fit with the first of `contexts` at which any fits.

    That is the largest, if it is fast or no `speed(choice, context)` (tokens per second) is known. Else it is the
    largest with FAST tokens per second; where none has, one with four bits, which is nearly as good and much faster.
    `beyond_weights(choice, context)` are the bytes that it needs in addition to its weights. Unquantized files (F16,
    BF16, F32) are taken only where there is nothing else: Q8_0 is half as large and as good. Raises DoesNotFit.
    """
    quantized = [c for c in choices if quant_of(c.files[0]) not in _UNQUANTIZED] or list(choices)
    quantized.sort(key=lambda choice: choice.size)
    for context in contexts:
        fitting = [c for c in quantized if c.size + beyond_weights(c, context) <= available]
        if fitting:
            largest = fitting[-1]
            if speed is not None:
                best, slow = _fast_enough(fitting, lambda choice, at=context: speed(choice, at))  # type: ignore[misc]
                if best is not largest:
                    return QuantDecision(best, f"{_sum(best, beyond_weights, context)}{slow}")
            larger = [c for c in quantized if c.size > largest.size]
            rest = f"; {larger[0].quant} ({larger[0].size}) does not" if larger else "; it is the largest"
            return QuantDecision(
                largest, f"{_sum(largest, beyond_weights, context)} fits in {ByteCount(available)} of memory{rest}"
            )
    raise DoesNotFit(
        f"even the smallest quantization, {_sum(quantized[0], beyond_weights, contexts[-1])}, "
        f"does not fit in {ByteCount(available)} of memory"
    )


def _fast_enough(fitting: Sequence[QuantChoice], speed: Callable[[QuantChoice], float]) -> tuple[QuantChoice, str]:
    """The quantization to prefer of those that fit, the smallest first, and why the largest is not it."""
    largest = fitting[-1]
    good = [choice for choice in fitting if bits_of(choice.quant) >= _GOOD_BITS]
    if not good or good[0] is largest:
        return largest, ""
    speeds = {choice: speed(choice) for choice in good}
    enough = max(FAST, max(speeds.values()) / _FAR_SLOWER)
    fast = [choice for choice in good if speeds[choice] >= enough]
    four = [choice for choice in good if bits_of(choice.quant) == _GOOD_BITS] or good[:1]
    usual = next((choice for choice in four if choice.quant.upper() == _USUAL), four[-1])
    best = fast[-1] if fast else usual
    reached, slowest = speeds[best], speeds[largest]
    if reached <= slowest * _MUCH_FASTER:
        return largest, ""
    return best, (
        f": about {reached:.2g} tokens/s here; {largest.quant} ({largest.size}) fits too, at about {slowest:.2g} "
        f"tokens/s. To take it, add :{largest.quant}"
    )


def bits_of(quant: str) -> int:
    """The bits of a weight that the name of a quantization tells: Q4_K_M -> 4, MXFP4 -> 4, BF16 -> 16; 0 if none."""
    found = re.search(r"(?:Q|FP|F)(\d+)", quant.upper())
    return int(found[1]) if found else 0


def _sum(choice: QuantChoice, beyond_weights: Callable[[QuantChoice, int], int], context: int) -> str:
    rest = ByteCount(beyond_weights(choice, context))
    tokens = f"{context // 1024}k" if context % 1024 == 0 else str(context)
    return f"{choice.quant} ({choice.size} and {rest} for a context of {tokens} tokens)"


def checkpoint_files(paths: Sequence[str], index: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The files of an original checkpoint: its configuration and tokenizer first, then the weights.

    `index` is the object in the file that `index_of` names. Raises what `weight_files` raises, NotFound where there are
    no weights at all, Incompatible for a GGUF file in raw parts.
    """
    weights = weight_files(paths, index).names
    if not weights:
        check_raw_parts(paths)
        if any(is_model_file(path) for path in paths):
            raise NotFound(
                "the repository has GGUF files, and no original weights (safetensors)", hint="leave out --original"
            )
        raise NotFound(
            "the repository has neither a GGUF model nor safetensors files", hint="choose another repository"
        )
    own_index = index_of(paths)
    return (*sorted({*settings_in(paths), *([own_index] if own_index else [])}), *weights)


def check_raw_parts(paths: Sequence[str], quant: str | None = None) -> None:
    """Raise Incompatible for a GGUF file (of the quantization `quant`) in raw parts, such as x.gguf.part1of2."""
    parts = sorted(path for path in paths if is_raw_part(path))
    if quant is not None:
        parts = [path for path in parts if same_quant(quant, quant_of(path) or "")]
    if parts:
        whole = parts[0][: parts[0].lower().rindex(".gguf") + 5]
        mine = [path for path in parts if path.startswith(whole)]
        raise Incompatible(
            f"{whole} is only there in {len(mine)} raw parts ({listed(mine, most=3)}), and dsr does not join them",
            hint=f"pull them with --include '{whole}?*', then join them in order: cat PARTS > NAME.gguf",
        )


def included(paths: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The paths that match any of the patterns. Raises NotFound for a pattern without a match, Incompatible
    for a pickle among the matches.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
            some = ", ".join(list(paths)[:8])
            raise NotFound(
                f"no file matches {pattern!r}", hint=f"the repository has {counted(len(paths), 'file')}: {some}"
            )
    chosen = tuple(path for path in paths if any(fnmatch.fnmatchcase(path, p) for p in patterns))
    pickles = [path for path in chosen if path.lower().endswith(PICKLES)]
    if pickles:
        raise Incompatible(
            f"{pickles[0]} is a pickle file, which can run any program when it is opened", hint="do not include it"
        )
    return chosen


def estimated_beyond_weights(size: int) -> int:
    """An estimate of the bytes that a model needs beyond its weights, from the size of the weights alone."""
    return max(_BEYOND_WEIGHTS_LEAST, size // _BEYOND_WEIGHTS_DIVISOR)


def smaller_model(entry: CatalogEntry | None, available: int) -> CatalogEntry | None:
    """The largest model of the catalogue that should fit, of the same family if there is one."""
    fitting = [e for e in load().entries if estimated_memory(e) <= available]
    family = [e for e in fitting if entry and e.family == entry.family]
    return max(family or fitting, key=lambda e: e.parameters, default=None)


def estimated_memory(entry: CatalogEntry) -> int:
    """Bytes of memory for a catalogue model at the 4.85 bits per weight of Q4_K_M files, with 8k of context."""
    weights = entry.parameters * 485 // 800
    return weights + estimated_beyond_weights(weights)
