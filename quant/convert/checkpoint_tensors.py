"""The checkpoint's tensors against the layout of its architecture: complete, nothing unknown, the right shapes."""

from __future__ import annotations

from collections.abc import Iterable

from quant.convert.layout import Layout, Target
from quant.sources.checkpoint import Checkpoint, check_readable
from runtime.base.errors import BadModelFile
from runtime.base.events import Listener, Notice
from runtime.base.types import counted

# Buffers that old checkpoints contain; llama.cpp's converter leaves them out (conversion/base.py).
_BUFFERS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
_NAMED = 3  # tensors that an error names


def matched(checkpoint: Checkpoint, layout: Layout, listen: Listener) -> list[Target]:
    """The targets that this checkpoint has, in llama.cpp's order.

    Raises BadModelFile for tensors that are missing, unknown, or of another shape than config.json says, and
    Incompatible for tensors of a type that cannot be read."""
    unused = _beyond_last_layer(layout, checkpoint.tensors)
    _check_names(checkpoint, layout, unused)
    _check_shapes(checkpoint, layout)
    if unused:
        count = counted(len(unused), "tensor")
        listen(Notice(f"left out: {count} of layers for predicting several tokens at once; --keep-mtp keeps them"))
    place = {name: number for number, name in enumerate(checkpoint.tensors)}
    targets = [target for target in layout.targets if not target.optional or target.after[0] in checkpoint.tensors]
    return sorted(targets, key=lambda target: max((place[source] for source in target.after), default=-1))


def _check_names(checkpoint: Checkpoint, layout: Layout, unused: frozenset[str]) -> None:
    found = checkpoint.tensors
    optional = {source for target in layout.targets if target.optional for source in target.after}
    missing = [source for source in layout.sources if source not in found and source not in optional]
    surplus = [
        name for name in found if name not in layout.sources and name not in unused and not _left_out(layout, name)
    ]
    total = len(layout.sources)
    lacking = counted(len(missing), f"of {total} tensors is missing", f"of {total} tensors are missing")
    for names, problem in (
        (missing, lacking),
        (surplus, counted(len(surplus), "tensor is surplus", "tensors are surplus")),
    ):
        if names:
            raise BadModelFile(
                checkpoint.folder,
                f"{problem} for its config.json: {_listed(names)}",
                hint="the weights and config.json must be those of one model, all of them",
            )


def _check_shapes(checkpoint: Checkpoint, layout: Layout) -> None:
    for name, shape in layout.sources.items():
        tensor = checkpoint.tensors.get(name)
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise BadModelFile(
                tensor.file,
                f"tensor {name!r} is {_size(tensor.shape)}, but config.json asks for {_size(shape)}",
                hint="the weights and config.json must be those of one model",
            )
        check_readable(tensor)


def _beyond_last_layer(layout: Layout, names: Iterable[str]) -> frozenset[str]:
    """Tensors of DeepSeek's extra layers for multi-token prediction, which are numbered after the last layer."""
    if layout.architecture != "deepseek2":
        return frozenset()
    layers = layout.config.layers + layout.config.mtp_layers
    extra = []
    for name in names:
        number = name.removeprefix("model.layers.").split(".", 1)[0]
        if name.startswith("model.layers.") and number.isdecimal() and int(number) >= layers:
            extra.append(name)
    return frozenset(extra)


def _left_out(layout: Layout, name: str) -> bool:
    """Whether `name` is a buffer, or an output matrix that repeats the embeddings and that DeepSeek does without."""
    tied = name == "lm_head.weight" and layout.config.flag("tie_word_embeddings")
    return name.endswith(_BUFFERS) or tied


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
