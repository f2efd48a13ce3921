"""Types that the user names for single tensors, beside a recipe: llama-quantize's --tensor-type, --pure and
--leave-output-tensor (tools/quantize/quantize.cpp and src/llama-quant.cpp of llama.cpp). Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.base.errors import UsageError
from runtime.gguf.types import BY_NAME, NOT_FOR_WEIGHTS

OUTPUT = "output.weight"
_TYPES = {name.lower(): name for name in BY_NAME if name not in NOT_FOR_WEIGHTS}


@dataclass(frozen=True, slots=True)
class TensorType:
    """`type` for each tensor in whose name the regular expression `pattern` is found."""

    pattern: str
    type: str

    def fits(self, name: str) -> bool:
        return re.search(self.pattern, name) is not None


@dataclass(frozen=True, slots=True)
class Overrides:
    """The first of `types` that fits a tensor decides. `pure`: all others have the recipe's main type.
    `keep_output`: the output matrix keeps its type."""

    types: tuple[TensorType, ...] = ()
    pure: bool = False
    keep_output: bool = False

    def __bool__(self) -> bool:
        return bool(self.types) or self.pure or self.keep_output

    def keeps(self, name: str) -> bool:
        return self.keep_output and name == OUTPUT

    def named(self, name: str) -> TensorType | None:
        """The entry that decides the type of a tensor, if any."""
        return next((each for each in self.types if each.fits(name)), None)


NONE = Overrides()


def tensor_type(text: str) -> TensorType:
    """The value of `--tensor-type PATTERN=TYPE`. Names are compared in lower case. Raises UsageError."""
    pattern, equals, kind = text.rpartition("=")
    if not (equals and pattern and kind):
        raise UsageError(f"--tensor-type is PATTERN=TYPE, not {text!r}", hint="as in --tensor-type ffn_down=q6_k")
    try:
        re.compile(pattern.lower())
    except re.error as error:
        raise UsageError(f"--tensor-type {text}: {pattern!r} is no regular expression: {error}") from None
    if kind.lower() not in _TYPES:
        near = difflib.get_close_matches(kind.lower(), _TYPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(_TYPES))}"
        raise UsageError(f"--tensor-type {text}: {kind!r} is not a type", hint=hint)
    return TensorType(pattern.lower(), _TYPES[kind.lower()])


def check_used(overrides: Overrides, names: Iterable[str]) -> None:
    """Raise UsageError for an entry that decides no tensor of the model."""
    listed = tuple(names)
    used = {overrides.named(name) for name in listed}
    for each in overrides.types:
        if each not in used:
            fitting = [name for name in listed if each.fits(name)]
            why = f"an earlier --tensor-type is for {fitting[0]}" if fitting else "no tensor that can be quantized fits"
            raise UsageError(
                f"--tensor-type {each.pattern}={each.type.lower()} changes nothing: {why}", hint=_examples(listed)
            )


def _examples(names: Sequence[str]) -> str:
    stems = dict.fromkeys(re.sub(r"^blk\.\d+\.|\.weight$", "", name) for name in names)
    return f"names are such as {', '.join([*stems][:8])}; to see all: dsr show MODEL --tensors"
