"""The plan of a quantized file: each tensor with its type and the reason, all metadata, the exact size.

A plan is pure data. Mixtures, recipes and the allocator make plans; `quant.write.execute` carries them out.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quant.gguf.writer import WRITTEN_HERE, KeyValue, layout, tensor_bytes, text, u32
from quant.sources.source import Shaped, Source, TensorSpec
from runtime.base.errors import DsrError, UsageError
from runtime.base.types import ByteCount, counted
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import card_from_headers, parse_header
from runtime.gguf.tensor_name import NamedTensor
from runtime.gguf.types import BY_NAME, NOT_FOR_WEIGHTS

TOKENIZER_KEY = "tokenizer.ggml.model"
QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION (ggml.h)
# Types of weights that were never quantized, or (FP8) were published so by the model's makers.
ORIGINAL_TYPES = frozenset({"F32", "F16", "BF16", "F64", "F8_E4M3"})
# The type for rows that do not divide into blocks of 256 (llama.cpp src/llama-quant.cpp, tensor_type_fallback).
_SMALLER_BLOCKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0", "Q2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_NEEDS_IMPORTANCE = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
# These never have an importance: no matrix multiplication uses them, or calibration leaves them out.
_WITHOUT_IMPORTANCE = frozenset({"token_embd.weight", "per_layer_token_embd.weight", "output.weight"})
# The quantizer refuses these three without an importance.
_NEVER_WITHOUT = frozenset({"IQ1_S", "IQ2_XXS", "IQ2_XS"})
# Keys that tell how a file was rounded: not true of a file that is made from it.
_OF_ROUNDING = "dsr.round."
# Types in which llama.cpp's converter writes a model that is not quantized (conversion/base.py).
PlainType = Literal["f32", "f16", "bf16"]
# How much work rounding is: the engine's rounding; feedback; feedback and sweeps.
Effort = Literal["off", "fast", "best"]
EFFORTS: tuple[Effort, ...] = ("off", "fast", "best")


@dataclass(frozen=True, slots=True)
class TensorPlan(Shaped, NamedTensor):
    """One tensor of the file.

    `shape` is in ggml order, `stored` the source's type, `target` the file's, `bytes` the size in the file. `rule`
    names the rule that decided; `wanted` is that rule's type where the shape did not allow it. `rounding` is the effort
    with which errors are corrected (`Effort`), "" for the engine's rounding."""

    name: str
    shape: tuple[int, ...]
    stored: str
    target: str
    rule: str
    bytes: int
    wanted: str = ""
    rounding: str = ""

    def __post_init__(self) -> None:
        if self.bytes != tensor_bytes(self.target, self.shape):
            raise ValueError(f"{self.name}: {self.bytes} bytes for {self.shape} in {self.target}")


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """All tensors and all metadata of the file, in order. `needs_imatrix`: a type needs an importance that is missing.
    `warnings` are sentences for people."""

    tensors: tuple[TensorPlan, ...]
    metadata: tuple[KeyValue, ...]
    warnings: tuple[str, ...] = ()
    needs_imatrix: bool = False

    @property
    def parameters(self) -> int:
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def bytes(self) -> ByteCount:
        """The exact size of the file with header and padding. Split files repeat a few bytes of header."""
        return ByteCount(layout(self.metadata, self.tensors).size)

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight without the header: llama-quantize prints this as BPW."""
        return sum(tensor.bytes for tensor in self.tensors) * 8 / max(self.parameters, 1)

    @property
    def digest(self) -> str:
        """The same for plans that write the same file from the same source."""
        out = hashlib.sha256()
        for entry in self.metadata:
            out.update(f"{entry.key}\0{len(entry.encoded)}\0".encode() + entry.encoded)
        for tensor in self.tensors:
            facts = f"{tensor.name}\0{tensor.shape}\0{tensor.stored}\0{tensor.target}"
            out.update(f"{facts}\0{tensor.rounding}\n".encode())
        return out.hexdigest()

    def card(self) -> ModelCard | None:
        """The model card of the planned file; None if a reader would refuse its header."""
        path, metadata = Path("plan.gguf"), self.metadata
        if all(entry.key != TOKENIZER_KEY for entry in metadata):  # config.json has the number of tokens
            metadata = (*metadata, text(TOKENIZER_KEY, "none"))
        planned = layout(metadata, self.tensors)
        try:
            return card_from_headers((path,), (parse_header(planned.header, planned.size, path),))
        except DsrError:
            return None


def make_plan(tensors: Iterable[TensorPlan], source: Source, file_type: int | None) -> QuantPlan:
    """The plan for `source` with these tensors, and with the warnings that follow from them.

    `file_type` is the number of llama_ftype (llama.h) by which readers name the file; None leaves the key out."""
    listed = tuple(tensors)
    lacking = [t for t in listed if requires_importance(t.name, t.target) and not source.has_importance(t.name)]
    warnings = []
    moved = Counter((tensor.wanted, tensor.target) for tensor in listed if tensor.wanted)
    if moved:
        pairs = ", ".join(f"{wanted} to {target}: {count}" for (wanted, target), count in moved.most_common())
        warnings.append(
            f"the rows of {sum(moved.values())} of {counted(len(listed), 'tensor')} do not divide into the blocks of "
            f"the wanted type, so another is taken ({pairs})"
        )
    if source.importance is not None:
        missing = [tensor.name for tensor in listed if _gains(tensor) and not source.has_importance(tensor.name)]
        if missing:
            first = "" if len(missing) == 1 else "the first "
            told = f"the importance matrix has no entry for {counted(len(missing), 'tensor')}, {first}{missing[0]}"
            warnings.append(told)
    again = [tensor for tensor in listed if loses_again(tensor)]
    if again:
        kinds = ", ".join(sorted({tensor.stored for tensor in again}))
        warnings.append(
            f"{counted(len(again), 'tensor is', 'tensors are')} quantized already ({kinds}): their losses add up, and "
            "the original weights would give a better file of the same size"
        )
    return QuantPlan(listed, _file_metadata(source, file_type), tuple(warnings), bool(lacking))


def planned(tensor: TensorSpec, wanted: str, rule: str) -> TensorPlan:
    """The plan of one tensor: the wanted type, or the type that stands in where its rows do not divide into blocks."""
    target = fitting_type(wanted, tensor.row_length)
    size = tensor_bytes(target, tensor.shape)
    return TensorPlan(tensor.name, tensor.shape, tensor.stored, target, rule, size, "" if target == wanted else wanted)


def fitting_type(type_name: str, row_length: int) -> str:
    """`type_name`, or the type that llama.cpp takes where rows do not divide into its blocks: one with blocks of 32 and
    at least about as many bits, else F16. Raises UsageError for a name that is not a type for weights."""
    kind = BY_NAME.get(type_name)
    if kind is None or type_name in NOT_FOR_WEIGHTS:
        raise UsageError(f"{type_name!r} is not a type for weights")
    if row_length % kind.block == 0:
        return type_name
    smaller = _SMALLER_BLOCKS.get(type_name, type_name)
    return smaller if row_length % BY_NAME[smaller].block == 0 else "F16"


# Small matrices that a conversion leaves in F32 (ModelBase.prepare_tensors in conversion/base.py of llama.cpp).
_ALWAYS_F32 = re.compile(
    r"\.(?:ffn_gate_inp(?:_shexp)?|ssm_conv1d(?:_[qkv])?|shortconv\.conv|altup_(?:correct|predict)_coef|indexer\.proj"
    r"|time_mix_(?:first|w1|w2|decay_w1|decay_w2|lerp_fused))\.weight$|^(?:position_embd|token_types)\.weight$"
)


def plain_type(tensor: TensorSpec, wanted: PlainType) -> str:
    """The ggml type of `tensor` in a conversion to `wanted`. Matrices get `wanted`; vectors, norms and routers stay
    F32, and matrices that are published as MXFP4 stay as they are."""
    name = tensor.name
    small = len(tensor.shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight")
    if small or _ALWAYS_F32.search(name):
        return "F32"
    return tensor.stored if tensor.stored == "MXFP4" else wanted.upper()


def requires_importance(name: str, target: str) -> bool:
    """Whether a tensor cannot be stored in `target` without an importance: the result would be noise."""
    return target in (_NEVER_WITHOUT if name in _WITHOUT_IMPORTANCE else _NEEDS_IMPORTANCE)


def loses_again(tensor: TensorPlan) -> bool:
    """Whether the tensor is quantized already and is quantized again. Floats of a form that ggml lacks are not."""
    if tensor.stored in ORIGINAL_TYPES or tensor.target == tensor.stored:
        return False
    return tensor.stored in BY_NAME or tensor.target not in ORIGINAL_TYPES


def _file_metadata(source: Source, file_type: int | None) -> tuple[KeyValue, ...]:
    """The metadata of the file, in llama-quantize's order."""
    news = {"general.quantization_version": u32("general.quantization_version", QUANTIZATION_VERSION)}
    if file_type is not None:
        news["general.file_type"] = u32("general.file_type", file_type)
    news |= {entry.key: entry for entry in source.added}
    kept = (
        entry
        for entry in source.metadata
        if entry.key not in WRITTEN_HERE and entry.key not in news and not entry.key.startswith(_OF_ROUNDING)
    )
    return *kept, *news.values()


def imatrix_entries(file: str, datasets: Sequence[str], entries: int, chunks: int) -> tuple[KeyValue, ...]:
    """The metadata by which a quantized file names its importance matrix, as llama-quantize writes it.

    `file` is the name the user gave; of `datasets` the first is kept; `entries` and `chunks` are counts."""
    found = [text("quantize.imatrix.file", _short(file))]
    if datasets:
        found.append(text("quantize.imatrix.dataset", _short(datasets[0])))
    found.append(u32("quantize.imatrix.entries_count", entries))
    if chunks > 0:
        found.append(u32("quantize.imatrix.chunks_count", chunks))
    return tuple(found)


def _short(value: str) -> str:
    """The engine's tools cut these texts to 127 bytes."""
    return value.encode()[:127].decode("utf-8", "ignore")


def _gains(tensor: TensorPlan) -> bool:
    """Whether an importance changes the result. Floats and Q8_0 are the same with and without."""
    unweighted = ORIGINAL_TYPES | {"Q8_0", "MXFP4"}
    return tensor.target not in unweighted and tensor.target != tensor.stored and tensor.name not in _WITHOUT_IMPORTANCE
