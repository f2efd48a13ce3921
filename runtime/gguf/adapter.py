"""LoRA adapters in GGUF files: their header is checked against the model before the engine reads them.

The layout is that of llama.cpp's convert_lora_to_gguf.py; the engine's own checks are in src/llama-adapter.cpp. It does
not check the number of experts, nor the rank of an adapter of the token table, and ends the process there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.base.errors import DsrError, Incompatible
from runtime.base.quoted import quoted_name
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.header import Header, TensorInfo
from runtime.gguf.metadata import Metadata
from runtime.gguf.reader import read_header

_TYPES = ("F32", "F16", "BF16", "Q8_0")  # what convert_lora_to_gguf.py writes
_A, _B = ".lora_a", ".lora_b"
_ANOTHER = "take the adapter that was made for this model"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that fits a model. `digest` is the SHA-256 of the whole file; `scale` multiplies its effect.

    The text of an adapter (repr) names all that its effect depends on, so not the path.
    """

    path: Path = field(repr=False)
    scale: float
    digest: str
    size: ByteCount


def read_adapter(path: Path, scale: float, card: ModelCard) -> Adapter:
    """Check that an adapter belongs to the model of `card`.

    Raises NotFound, BadModelFile for a broken file, Incompatible for what is no adapter or belongs to another model.
    """
    header = read_header(path)
    _check_kind(Metadata(path, header.metadata, ""), card)
    _check_tensors(path, header, card)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    except OSError as error:
        raise DsrError(f"{path}: {error.strerror or error}") from error
    return Adapter(path, scale, digest.hexdigest(), header.file_size)


def _check_kind(metadata: Metadata, card: ModelCard) -> None:
    path = metadata.path
    kind, method = metadata.text("general.type"), metadata.text("adapter.type")
    if kind != "adapter":
        raise Incompatible(
            f"{path}: not a LoRA adapter: its general.type is {quoted_name(kind or 'missing')}",
            hint="llama.cpp's convert_lora_to_gguf.py makes one from an adapter of PEFT",
        )
    if method != "lora":
        raise Incompatible(f"{path}: an adapter of type {quoted_name(method or 'missing')}; the engine knows lora only")
    architecture = metadata.text("general.architecture") or "missing"
    if architecture != card.architecture:
        raise Incompatible(
            f"{path}: an adapter for {quoted_name(architecture)}, and {card.name} is {card.architecture}", hint=_ANOTHER
        )
    if metadata.get("adapter.alora.invocation_tokens") is not None:
        raise Incompatible(f"{path}: an activated LoRA (aLoRA), which works from some token on; dsr cannot use it")
    metadata.number("adapter.lora.alpha")


def _check_tensors(path: Path, header: Header, card: ModelCard) -> None:
    weights = {tensor.name: tensor for tensor in card.tensors}
    tensors = {tensor.name: tensor for tensor in header.tensors}
    pairs = dict.fromkeys(name[: -len(_A)] for name in tensors if name.endswith((_A, _B)))
    for name in tensors:
        if not name.endswith((_A, _B, "_norm.weight")):
            raise Incompatible(f"{path}: {quoted_name(name)} is not a tensor of a LoRA adapter")
    if not pairs:
        raise Incompatible(f"{path}: an adapter without tensors")
    for name in pairs:
        _check_pair(path, name, tensors, weights.get(name), card)


def _check_pair(
    path: Path, name: str, tensors: Mapping[str, TensorInfo], weight: TensorInfo | None, card: ModelCard
) -> None:
    a, b = tensors.get(name + _A), tensors.get(name + _B)
    if a is None or b is None:
        missing = _A if a is None else _B
        raise Incompatible(f"{path}: {quoted_name(name + missing)} is missing")
    if weight is None:
        raise Incompatible(f"{path}: an adapter of {quoted_name(name)}, which {card.name} does not have", hint=_ANOTHER)
    for each in (a, b):
        if each.type not in _TYPES:
            raise Incompatible(f"{path}: {quoted_name(each.name)} is {each.type}; adapters have {', '.join(_TYPES)}")
    rank = a.shape[0] if name == "token_embd.weight" else a.shape[1] if len(a.shape) > 1 else 0
    if (a.shape, b.shape) != _shapes(name, weight.shape, rank):
        raise Incompatible(
            f"{path}: the adapter of {quoted_name(name)} is {a.shape} and {b.shape}; that does not fit {weight.shape}",
            hint=_ANOTHER,
        )


def _shapes(name: str, weight: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of A and B in ggml order, for the token table transposed (build_inp_embd in src/llama-graph.cpp)."""
    width, rows, *experts = (*weight, 1) if len(weight) == 1 else weight
    if name == "token_embd.weight":
        return (rank, rows), (rank, width)
    return (width, rank, *experts), (rank, rows, *experts)
