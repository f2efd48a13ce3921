"""A `ModelCard` estimated from the catalogue's figures: enough to predict memory and speed."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from dsr.models.catalog import CatalogEntry, load
from dsr.models.shape import Shape
from runtime.base.errors import NotFound
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.header import TensorInfo
from runtime.gguf.types import BY_NAME
from runtime.gguf.values import ArrayValue, Value
from runtime.placement.compared import SKETCH

Mixture = tuple[tuple[str, float], ...]

# Shares of the weights of the layers by type, about as llama.cpp's mixtures come out (src/llama-quant.cpp); embedding
# and head have the last type named.
MIXTURES: dict[str, Mixture] = {
    "Q2_K": (("Q2_K", 0.65), ("Q3_K", 0.2), ("Q6_K", 0.15)),
    "Q3_K_M": (("Q3_K", 0.7), ("Q4_K", 0.15), ("Q6_K", 0.15)),
    "Q4_K_M": (("Q4_K", 0.88), ("Q6_K", 0.12)),
    "Q5_K_M": (("Q5_K", 0.88), ("Q6_K", 0.12)),
    "Q6_K": (("Q6_K", 1.0),),
    "Q8_0": (("Q8_0", 1.0),),
}
# gpt-oss is published as it was trained: experts in MXFP4.
_AS_TRAINED: dict[str, dict[str, Mixture]] = {"gpt-oss": {"MXFP4": (("MXFP4", 0.95), ("Q8_0", 0.05))}}

_USUAL = "Q4_K_M"  # nearly as good as the original, at a third of its size
_VOCABULARY = 150_000  # tokens: between 129 280 of DeepSeek and 201 088 of gpt-oss
_TIED_BELOW = 3_500_000_000  # parameters: small models have no head of their own
_HEAD_LENGTH, _KV_HEADS = 128, 8  # Qwen3 and Llama 3; Qwen2.5 has fewer
_LATENT, _ROPE = 512, 64  # DeepSeek V2 and V3
_EXPERTS_USED = 8  # by a token, as in most mixtures; how many experts there are follows from the active parameters


@cache
def estimated_card(entry: CatalogEntry, quant: str) -> ModelCard:
    """The estimated header of `entry` at one of the quantizations in `mixtures`. Raises NotFound for another."""
    known = mixtures(entry)
    if quant not in known:
        raise NotFound(f"dsr cannot estimate {quant} offline", hint=f"choose one of: {', '.join(known)}")
    layers = entry.layers or _layers(entry)
    shape = entry.shape or _usual_shape(entry, layers)
    width, vocabulary = shape.width, shape.vocabulary or _VOCABULARY
    mixture, finest = known[quant], known[quant][-1:]
    tensors = _tensors("token_embd", width, vocabulary, finest)
    tensors += [] if shape.tied else _tensors("output", width, vocabulary, finest)
    if shape.lookup:
        tensors += _tensors("per_layer_token_embd", shape.lookup * layers, vocabulary, finest)
    body = (shape.weights or entry.parameters) - sum(tensor.parameters for tensor in tensors)
    # About half of the active weights are routed experts: 54 % in Qwen3-30B-A3B, 56 % in DeepSeek-R1.
    mixture_of_experts = entry.active_parameters < entry.parameters and not shape.lookup
    always = max(entry.active_parameters // 2 - vocabulary * width, 0) if mixture_of_experts else body
    routed = body - always
    share = entry.active_parameters / 2 / routed if routed else 0.0
    experts = max(_EXPERTS_USED, round(_EXPERTS_USED / share)) if routed else 0
    for layer in range(layers):
        part = "sketch" if not shape.state or shape.sees_all(layer, layers) else "ssm_sketch"
        tensors += _tensors(f"blk.{layer}.{part}", width, always // layers // width, mixture)
        tensors += _tensors(f"blk.{layer}.sketch_exps", width, routed // layers // width, mixture, experts)
    kv_heads = (1 if shape.latent else shape.kv_heads, shape.narrow_heads or shape.kv_heads)
    key_length = shape.latent or shape.head
    return ModelCard(
        files=(Path(entry.name),),
        size=ByteCount(sum(tensor.size for tensor in tensors)),
        architecture=SKETCH,
        name=entry.model,
        metadata=_metadata(entry.shape, layers) if entry.shape else {},
        tensors=tuple(tensors),
        header_digest=f"sketch of {entry.name} at {quant}",
        layers=layers,
        nextn_layers=0,
        context_length=entry.context or 32768,
        embedding_length=width,
        heads=shape.heads or width // _HEAD_LENGTH,
        kv_heads_per_layer=tuple(kv_heads[not shape.sees_all(layer, layers)] for layer in range(layers)),
        key_length=key_length,
        value_length=_LATENT if shape.latent else shape.head,
        rope_dimensions=_ROPE if shape.latent else shape.head,
        q_lora_rank=0,
        kv_lora_rank=_LATENT if shape.latent else 0,
        key_length_mla=_HEAD_LENGTH if shape.latent else 0,
        value_length_mla=_HEAD_LENGTH if shape.latent else 0,
        experts=experts,
        experts_used=_EXPERTS_USED if routed else 0,
        vocab_size=vocabulary,
        bos_token=None,
        eos_token=None,
        template=None,
    )


def mixtures(entry: CatalogEntry) -> dict[str, Mixture]:
    """The quantizations that can be estimated for a model, the smallest first, with their types of tensors."""
    return _AS_TRAINED.get(entry.family, MIXTURES)


def quants_to_try(entry: CatalogEntry) -> list[str]:
    """The usual quantization, then the smaller ones."""
    known = list(mixtures(entry))
    return list(reversed(known[: known.index(_USUAL) + 1] if _USUAL in known else known))


def _tensors(name: str, width: int, rows: int, mixture: Mixture, experts: int = 0) -> list[TensorInfo]:
    """`rows` rows of `width`, a tensor for each type of the mixture; none for 0 rows. `experts` share the rows."""
    found = []
    for number, (kind_name, share) in enumerate(mixture):
        kind, part = BY_NAME[kind_name], rows * share / sum(share for _, share in mixture)
        shape = (width, round(part / experts), experts) if experts else (width, round(part))
        suffix = f".{number}" if number else ""
        size = ByteCount(math.prod(shape) // kind.block * kind.width)
        found.append(TensorInfo(f"{name}{suffix}.weight", shape, kind_name, 0, size))
    return [tensor for tensor in found if tensor.size]


def _usual_shape(entry: CatalogEntry, layers: int) -> Shape:
    """The shape of a model about which the catalogue says nothing: full attention in each layer."""
    # A layer has about 12 width^2 weights that each token uses: 4 of attention, 8 of the feed-forward network.
    width = round(math.sqrt(entry.active_parameters / (12 * layers)) / 256) * 256 or 256
    latent = entry.active_parameters < entry.parameters and entry.family.startswith("deepseek")
    tied = entry.parameters < _TIED_BELOW
    return Shape(width, tied=tied, kv_heads=_KV_HEADS, head=_HEAD_LENGTH, latent=_LATENT + _ROPE if latent else 0)


def _metadata(shape: Shape, layers: int) -> dict[str, Value]:
    """The keys of a header (docs/gguf.md) that tell which layers have a window, a state, or no cache of their own."""
    found: dict[str, Value] = {}
    if shape.window:
        narrow = bytes(not shape.sees_all(layer, layers) for layer in range(layers))
        found["attention.sliding_window"] = shape.window
        found["attention.sliding_window_pattern"] = ArrayValue("bool", layers, narrow)
        found["attention.key_length_swa"] = found["attention.value_length_swa"] = shape.narrow_head
    if shape.state:
        found |= {"ssm.inner_size": shape.state, "ssm.state_size": 1, "ssm.conv_kernel": 1, "ssm.group_count": 0}
    if shape.own:
        found["attention.shared_kv_layers"] = layers - shape.own
    return {f"{SKETCH}.{key}": value for key, value in found.items()} | {f"{SKETCH}.vocab_size": shape.vocabulary}


def _layers(entry: CatalogEntry) -> int:
    """The number of layers of the model of the same kind that is closest in size."""
    dense = entry.active_parameters == entry.parameters
    known = [e for e in load().entries if e.layers and (e.active_parameters == e.parameters) is dense]
    return min(known, key=lambda e: abs(math.log(e.parameters / entry.parameters))).layers or 1
