"""A value head: how likely a reply will be right, from the model's hidden state at the end of its beginning.

The file is in the safetensors format. STEM is `v_head.summary`, `v_head`, `value_head`, `score` or `classifier`:

    STEM.weight [outputs, hidden size], and perhaps STEM.bias [outputs]              one layer
    STEM.0.weight, STEM.0.bias, STEM.2.weight, STEM.2.bias                           two, with a ReLU between them

One output goes through a sigmoid. Of several the softmax is taken, and one of them means "right": the second of two; of
more, the one whose number, from 0, the metadata of the file have as `right`. These are, from memory, the names of
published models: TRL's value heads have `v_head.summary`, reward models of transformers `score` with one output,
Qwen2.5-Math-PRM `score.0` and `score.2` with two. Other tensors, such as those of the model, are not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.base.errors import BadModelFile, Incompatible, UsageError
from runtime.base.quoted import spelled
from runtime.base.safetensors import StoredTensor, read_header, read_metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAME = re.compile(r"(?:.+\.)?(v_head\.summary|v_head|value_head|score|classifier)(\.[02])?\.(weight|bias)")
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_HINT = "its names are score.weight and score.bias; see docs/guides/better-answers.md"


@dataclass(frozen=True, slots=True, eq=False)
class ValueHead:
    """`layers` are (weights [outputs, inputs], bias [outputs]); `right`: the output that means "right"."""

    path: Path
    layers: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]
    right: int

    @property
    def inputs(self) -> int:
        return int(self.layers[0][0].shape[1])

    def values(self, states: Sequence[Sequence[float]]) -> list[float]:
        """The probability of being right, for each hidden state. Raises Incompatible for states of another length."""
        import numpy as np

        if not states:
            return []
        for state in states:
            if len(state) != self.inputs:
                raise Incompatible(
                    f"{self.path}: this head reads hidden states of {self.inputs:,} numbers, and the model's have "
                    f"{len(state):,}",
                    hint="use the head that was trained for this model",
                )
        found = np.asarray(states, np.float64)
        for number, (weights, bias) in enumerate(self.layers):
            found = (np.maximum(found, 0) if number else found) @ weights.T + bias
        if found.shape[1] == 1:
            found = np.concatenate((np.zeros_like(found), found), axis=1)  # whose softmax is the sigmoid
        powers = np.exp(found - found.max(axis=1, keepdims=True))
        return [float(each) for each in powers[:, self.right] / powers.sum(axis=1)]


def check_head(file: str) -> None:
    """Raise UsageError for a setting that names no file; an empty one is none."""
    if file and not Path(file).is_file():
        raise UsageError(f"{file}: there is no such file", hint="name a file with a value head")


def read_head(path: Path) -> ValueHead:
    """The head in a file. Raises NotFound, BadModelFile, and Incompatible for a file without a head as above."""
    import numpy as np

    found: dict[tuple[str, str, str], StoredTensor] = {}
    for tensor in read_header(path):
        name = _NAME.fullmatch(tensor.name)
        if name is not None:
            found[name[1], name[2] or "", name[3]] = tensor
    stems = {stem for stem, _, _ in found}
    if len(stems) != 1:
        what = f"{len(stems)} heads: {', '.join(sorted(stems))}" if stems else "no value head"
        raise Incompatible(f"{path}: this file has {what}", hint=_HINT)
    [stem] = stems
    names = [".0", ".2"] if (stem, ".0", "weight") in found else [""]
    layers = []
    for layer in names:
        weight, bias = found.get((stem, layer, "weight")), found.get((stem, layer, "bias"))
        if weight is None or len(weight.shape) != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            raise Incompatible(f"{path}: {stem}{layer}.weight is no matrix with a bias of as many rows", hint=_HINT)
        numbers = np.zeros(weight.rows) if bias is None else _numbers(bias)
        layers.append((_numbers(weight).reshape(weight.shape), numbers))
    if len(layers) == 2 and layers[1][0].shape[1] != layers[0][0].shape[0]:
        raise Incompatible(f"{path}: the second layer of {stem} does not read what the first one gives")
    return ValueHead(path, tuple(layers), _right(path, len(layers[-1][1])))


def _right(path: Path, outputs: int) -> int:
    if outputs in (1, 2):
        return 1
    told = read_metadata(path).get("right", "")
    if not told.isdecimal() or int(told) >= outputs:
        raise Incompatible(
            f"{path}: this head has {outputs} outputs, and which of them means right is not told",
            hint='write its number, from 0, into the metadata of the file: {"right": "1"}',
        )
    return int(told)


def _numbers(tensor: StoredTensor) -> NDArray[np.float64]:
    import numpy as np

    kind = _KINDS.get(tensor.dtype)
    if kind is None:
        raise Incompatible(f"{tensor.file}: {spelled(tensor.name)} has the type {tensor.dtype}, which no head has")
    with tensor.file.open("rb") as file:
        file.seek(tensor.begin)
        raw = np.frombuffer(file.read(tensor.end - tensor.begin), kind)
    if tensor.dtype == "BF16":  # the upper half of a float32
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    numbers = raw.astype(np.float64)
    if not math.isfinite(float(np.abs(numbers).sum())):
        raise BadModelFile(tensor.file, f"{spelled(tensor.name)} has a number that is not finite")
    return numbers
