"""The checkpoint's tensors against the layout of its family: complete, nothing unknown, the right shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quant.convert.facts import Facts
from quant.convert.family import Family
from quant.convert.layout import Layout, Target
from quant.sources.checkpoint import Checkpoint, check_readable
from runtime.base.errors import ONE_MODEL, BadModelFile
from runtime.base.events import Listener, Notice
from runtime.base.safetensors import StoredTensor
from runtime.base.types import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Buffers that old checkpoints contain; llama.cpp's converter leaves them out (conversion/base.py).
_BUFFERS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
# The parts of a multimodal checkpoint that see and hear (TextModel.filter_tensors in conversion/base.py).
_OTHER_SENSES = re.compile(
    r"^(?:mlp|vit\.|vpm\.|siglip2\.|conformer\.|merger\.|resampler\.|sound_\w+\.|speech_embeddings\.)"
    r"|visual\.|vision\.|audio\.|talker\.|vision_|audio_|token2wav\.|code2wav\.|projector\.|pre_mm_projector_norm"
    r"|image_newline|view_seperator|patch_embed|patch_merge|model\.connector\."
)
_LANGUAGE_MODEL = "language_model."  # a part of names, which is left out
_NAMED = 3  # tensors that an error names


@dataclass(frozen=True)
class NamedTensors:
    """The stored tensors under the names of a family's table; `stored` are those of the checkpoint."""

    checkpoint: Checkpoint
    stored: Mapping[str, str]

    def __getitem__(self, name: str) -> StoredTensor:
        return self.checkpoint.tensors[self.stored[name]]

    def get(self, name: str) -> StoredTensor | None:
        return self[name] if name in self.stored else None

    def read(self, name: str, first: int, count: int, out: NDArray[np.float32]) -> None:
        """Fill `out` with rows of the tensor `name`, as quant.convert.weights wants it."""
        self.checkpoint.read(self.stored[name], first, count, out)

    def number(self, name: str) -> float:
        """The value of a tensor of one element. Raises BadModelFile."""
        import numpy as np

        tensor = self.get(name)
        if tensor is None or tensor.rows * tensor.width != 1:
            found = "is missing" if tensor is None else f"is {_size(tensor.shape)}, not a single number"
            raise BadModelFile(self.checkpoint.folder, f"tensor {name!r} {found}", hint=ONE_MODEL)
        check_readable(tensor)
        value = np.empty((1, 1), np.float32)
        self.read(name, 0, 1, value)
        if not np.isfinite(value[0, 0]):
            raise BadModelFile(self.checkpoint.folder, f"tensor {name!r} is not a finite number", hint=ONE_MODEL)
        return float(value[0, 0])

    @property
    def blocks(self) -> _Blocks:
        """The same tensors, of which rows are read as ggml's blocks of their stored type."""
        return _Blocks(self)


@dataclass(frozen=True)
class _Blocks:
    named: NamedTensors

    def read(self, name: str, first: int, count: int, out: NDArray[Any]) -> None:
        """Fill `out`, (count, bytes of a row), with rows of the tensor `name`."""
        out[...] = self.named.checkpoint.stored_rows(self.named.stored[name], first, count)


def named(checkpoint: Checkpoint, family: Family, facts: Facts) -> NamedTensors:
    """The tensors of the language model, renamed as the family's table has them."""
    stored = {}
    mtp = re.compile(re.escape(family.mtp_layers) + r"(\d{1,4})\.") if family.mtp_layers else None
    for name in checkpoint.tensors:
        if _OTHER_SENSES.search(name):
            continue
        new = name.replace(_LANGUAGE_MODEL, "")
        for old, replacement in family.renames:
            new = new.replace(old, replacement)
        found = mtp.match(new) if mtp else None
        if found:  # behind the other layers
            new = f"model.layers.{facts.layers + int(found[1])}.{new[found.end() :]}"
        stored[new] = name
    return NamedTensors(checkpoint, stored)


def matched(tensors: NamedTensors, family: Family, facts: Facts, layout: Layout, listen: Listener) -> list[Target]:
    """The targets that this checkpoint has, in llama.cpp's order.

    Raises BadModelFile for tensors that are missing, unknown, or of another shape than config.json says, and
    Incompatible for tensors of a type that cannot be read."""
    unused = _of_mtp(tensors, family, facts, layout)
    _check_names(tensors, family, layout, unused)
    _check_shapes(tensors, layout)
    senses = len(tensors.checkpoint.tensors) - len(tensors.stored)
    if senses:
        listen(Notice(f"left out: {counted(senses, 'tensor')} for images and sound; dsr converts the language model"))
    if unused:
        count = counted(len(unused), "tensor")
        listen(Notice(f"left out: {count} of layers for predicting several tokens at once; --keep-mtp keeps them"))
    place = {name: number for number, name in enumerate(tensors.stored)}
    targets = [target for target in layout.targets if not target.optional or target.after[0] in tensors.stored]

    def order(target: Target) -> tuple[bool, int]:
        return not target.early and bool(target.after), max((place[source] for source in target.after), default=-1)

    return sorted(targets, key=order)


def _check_names(tensors: NamedTensors, family: Family, layout: Layout, unused: frozenset[str]) -> None:
    found, folder = tensors.stored, tensors.checkpoint.folder
    optional = {source for target in layout.targets if target.optional for source in target.after}
    missing = [source for source in layout.sources if source not in found and source not in optional]
    left_out = [re.compile(pattern) for pattern in family.left_out]

    def is_surplus(name: str) -> bool:
        known = name in layout.sources or name in unused or name.endswith(_BUFFERS)
        return not known and not any(pattern.fullmatch(name) for pattern in left_out)

    surplus = [name for name in found if is_surplus(name)]
    total = len(layout.sources)
    lacking = counted(len(missing), f"of {total} tensors is missing", f"of {total} tensors are missing")
    for names, problem in (
        (missing, lacking),
        (surplus, counted(len(surplus), "tensor is surplus", "tensors are surplus")),
    ):
        if names:
            raise BadModelFile(
                folder,
                f"{problem} for its config.json: {_listed(names)}",
                hint="the weights and config.json must be those of one model, all of them",
            )


def _check_shapes(tensors: NamedTensors, layout: Layout) -> None:
    for name, shape in layout.sources.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise BadModelFile(
                tensor.file,
                f"tensor {tensor.name!r} is {_size(tensor.shape)}, but config.json asks for {_size(shape)}",
                hint="the weights and config.json must be those of one model",
            )
        check_readable(tensor)


def _of_mtp(tensors: NamedTensors, family: Family, facts: Facts, layout: Layout) -> frozenset[str]:
    """Tensors of layers for multi-token prediction that are not kept: they are numbered after the last layer, and some
    are in no layer."""
    if not family.has_mtp:
        return frozenset()
    pattern = re.compile(r"model\.layers\.(\d{1,9})\.")
    numbers = {name: found for name in tensors.stored if (found := pattern.match(name))}
    behind = {name for name, found in numbers.items() if int(found[1]) >= facts.all_layers}
    if facts.all_layers == facts.layers:
        behind |= {source for each in family.mtp for source in each.of if "{" not in source}
    return frozenset(behind.intersection(tensors.stored))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
