"""What a model needs in memory: weights, KV cache, working buffers, the program. Pure arithmetic over a `ModelCard`.

The caches are those of llama.cpp's src/llama-kv-cache.cpp and src/llama-memory-recurrent.cpp as `runtime.llama` opens
them: all sequences share one cache, and layers with a sliding window keep the whole context (swa_full). MLA models keep
the compressed latent only, and only once, since their values are a view of their keys. Weights and caches are exact;
working buffers are a fit to the engine's own account (`runtime.llama.memory_breakdown`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction

from runtime.base.types import ByteCount
from runtime.gguf import types
from runtime.gguf.card import ModelCard
from runtime.gguf.header import ArrayValue, TensorInfo
from runtime.gguf.layers import layer_count, parts

_CELLS = 256  # the cache grows in steps of so many tokens
_UBATCH = 512  # tokens in one pass through the graph, llama.cpp's default
_FLOAT = 4
_MASK = 2  # bytes of the attention mask per token and cell
_CANDIDATE = 12  # struct llama_token_data, of which every sampler has one per token of the vocabulary
_PROGRAM = 64 << 20  # interpreter, dsr, numpy, the engine's libraries and small tables: measured with `dsr chat`
_TABLE_ENTRY = 200  # bytes per token or merge in the engine's tables: measured, 19.8 MiB for the 98 052 of SmolLM2


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """All in bytes. `weights` are mapped from the file; `compute` is an estimate, `reason` says of what."""

    weights: ByteCount
    kv_cache: ByteCount
    compute: ByteCount
    reason: str

    @property
    def total(self) -> ByteCount:
        return ByteCount(self.weights + self.kv_cache + self.compute)

    @property
    def beyond_weights(self) -> ByteCount:
        return ByteCount(self.kv_cache + self.compute)


@dataclass(frozen=True, slots=True)
class Costs:
    """What each part of a model takes on the device that holds it, in bytes.

    `layers` and `experts` are the weights of each layer without and of its routed experts, `kv_cache` is its cache.
    `head` is the output's weights, which the home of a `tied` model has already in its `embedding`. Of the working
    buffers, which serve all parts one after the other, `attending` is that of a device with layers, `routing` of one
    with routed experts, `logits` of the home and of the one with the head; each has the attention mask in it. `drawing`
    and `program` belong to the home: the CPU of the machine the program runs on, which also looks the embedding up.
    """

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    kv_cache: tuple[int, ...]
    embedding: int
    head: int
    tied: bool
    attending: int
    routing: int
    logits: int
    drawing: int
    program: int
    rows: int

    def need(self, layers: Collection[int], experts: Collection[int], *, head: bool, home: bool) -> MemoryNeed:
        """Of a device that holds `layers`, the routed experts of the layers `experts`, and perhaps the head."""
        weights = sum(self.layers[n] for n in layers) + sum(self.experts[n] for n in experts)
        weights += self.embedding if home else 0
        weights += self.head - (self.embedding if self.tied and home else 0) if head else 0
        routed = any(self.experts[n] for n in experts)
        outside = self.logits if head or home else 0
        compute = max(self.attending if layers else 0, self.routing if routed else 0, outside)
        return MemoryNeed(
            weights=ByteCount(weights),
            kv_cache=ByteCount(sum(self.kv_cache[n] for n in layers)),
            compute=ByteCount(compute + (self.drawing + self.program if home else 0)),
            reason=f"estimated: activations of {self.rows} tokens, attention mask"
            + (", logits" if head else "")
            + (", samplers, tokenizer, program" if home else ""),
        )


def need(
    card: ModelCard, context: int, slots: int = 1, kv_type: str = "f16", drafted: int = 0, *, mtp: bool = False
) -> MemoryNeed:
    """Memory of one machine for a cache of `context` tokens that all `slots` sequences share; with drafts, up to
    `drafted` tokens are checked at once; with `mtp` the layers that predict ahead are used as well."""
    every = range(layer_count(card))
    whole = costs(card, context, slots, kv_type, drafted).need(every, every, head=True, home=True)
    if not mtp:
        return whole
    ahead = _ahead(card, context, slots, kv_type, drafted)
    return MemoryNeed(
        weights=ByteCount(whole.weights + ahead.weights),
        kv_cache=ByteCount(whole.kv_cache + ahead.kv_cache),
        compute=ByteCount(whole.compute + ahead.compute),
        reason=f"{whole.reason}; {ahead.reason}",
    )


def costs(card: ModelCard, context: int, slots: int = 1, kv_type: str = "f16", drafted: int = 0) -> Costs:
    """What each part of a model takes, wherever it is."""
    whole = parts(card)
    cells = -(-context // _CELLS) * _CELLS
    rows = min(_UBATCH, cells)
    outputs = max(slots, drafted) + 1
    mask = rows * cells * _MASK * (2 if _window(card) else 1)
    merges = card.metadata.get("tokenizer.ggml.merges")
    entries = card.vocab_size + (merges.count if isinstance(merges, ArrayValue) else 0)
    return Costs(
        layers=tuple(sum(layer.always.values()) for layer in whole.layers),
        experts=tuple(sum(layer.routed.values()) for layer in whole.layers),
        kv_cache=_caches(card, cells, slots, kv_type),
        embedding=whole.embedding.bytes,
        head=whole.output.bytes,
        tied=whole.tied,
        attending=rows * max(_attention_floats(card), _dense_floats(card)) * _FLOAT + mask,
        routing=rows * _routed_floats(card) * _FLOAT + mask,
        logits=(outputs * card.vocab_size + rows * card.embedding_length) * _FLOAT + mask,
        drawing=outputs * card.vocab_size * _FLOAT + slots * card.vocab_size * _CANDIDATE,
        program=_PROGRAM + entries * _TABLE_ENTRY,
        rows=rows,
    )


def largest_context(
    card: ModelCard, available: int, slots: int = 1, kv_type: str = "f16", drafted: int = 0, *, mtp: bool = False
) -> int:
    """The largest context, at most the one the model was trained for, that fits `available` bytes; 0 if none does."""

    def fits(context: int) -> bool:
        return need(card, context, slots, kv_type, drafted, mtp=mtp).total <= available

    low, high = 0, card.context_length // _CELLS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * _CELLS) else (low, middle - 1)
    whole = low == card.context_length // _CELLS and fits(card.context_length)
    return card.context_length if whole else low * _CELLS


def _ahead(card: ModelCard, context: int, slots: int, kv_type: str, drafted: int) -> MemoryNeed:
    """Of the second context, in which `runtime.llama.mtp` runs the layers that predict ahead, and of the states that
    recurrent layers keep then, one for each token that is drafted."""
    whole = costs(replace(card, nextn_layers=0), context, slots, kv_type)
    layers = range(layer_count(card), card.layers)
    own = whole.need(layers, layers, head=False, home=False)
    # The hidden states of a batch: put out by the model, kept, and handed in.
    hidden = 3 * _UBATCH * card.embedding_length * _FLOAT
    logits = (slots + 1) * card.vocab_size * _FLOAT
    states = drafted * (slots + 1) * _recurrent_values(card) * _FLOAT * len(_layers_with(card, ".ssm_"))
    return MemoryNeed(
        weights=own.weights,
        kv_cache=ByteCount(own.kv_cache + states),
        compute=ByteCount(max(own.compute, whole.logits) + logits + hidden),
        reason="a second context for the layers that predict ahead",
    )


def kv_bytes_per_token(card: ModelCard, kv_type: str = "f16") -> int:
    """Bytes of KV cache that one more token of context costs."""
    return math.ceil(sum(_bytes_per_token(card, kv_type)))


def repacked(card: ModelCard, features: Collection[str]) -> ByteCount:
    """Bytes of weights that a CPU with these features (`Machine.features`) keeps a second time, in another order.

    They are in memory beside the pages of the file, which the system takes back when it must: top shows them, and no
    model needs them. Source: ggml_repack_get_optimal_repack_type in ggml/src/ggml-cpu/repack.cpp.
    """
    multiples = _repacked_types(features)
    tied = all(tensor.name != "output.weight" for tensor in card.tensors)

    def is_copied(tensor: TensorInfo) -> bool:
        if tensor.layer is None:
            multiplied = tensor.name == ("token_embd.weight" if tied else "output.weight")
        else:
            multiplied = tensor.layer < layer_count(card) and len(tensor.shape) == (3 if "_exps." in tensor.name else 2)
        return multiplied and tensor.type in multiples and tensor.shape[1] % multiples[tensor.type] == 0

    return ByteCount(sum(tensor.size for tensor in card.tensors if is_copied(tensor)))


def warning(card: ModelCard) -> str | None:
    """What a person should know about this file's memory before it is used."""
    if not has_unpacked_latent(card):
        return None
    times = round(card.kv_heads * (card.key_length + card.value_length) / (card.kv_lora_rank + card.rope_dimensions))
    return (
        f"{card.name} was converted before llama.cpp kept the latent of MLA alone: its KV cache takes {times} times "
        f"the memory of a newer file of the same model"
    )


def has_unpacked_latent(card: ModelCard) -> bool:
    """Whether this is a DeepSeek file of before April 2025: no lengths for MLA, and `attn_kv_b` in one piece."""
    return card.architecture == "deepseek2" and card.kv_lora_rank > 0 and not card.is_mla


def _caches(card: ModelCard, cells: int, slots: int, kv_type: str) -> tuple[int, ...]:
    """Bytes of each layer: keys and values of all cells, and the state of each slot where the layer is recurrent."""
    state = (slots + 1) * _recurrent_values(card) * _FLOAT
    recurrent = _layers_with(card, ".ssm_")
    each = _bytes_per_token(card, kv_type)
    return tuple(math.ceil(cells * each[n]) + (state if n in recurrent else 0) for n in range(len(each)))


def _bytes_per_token(card: ModelCard, kv_type: str) -> list[Fraction]:
    kind = types.kv_type(kv_type)
    per_value = Fraction(kind.width, kind.block)
    # Layers with a recurrent state in place of attention are told apart by what they do not have.
    without = _layers_with(card, ".ssm_") - _layers_with(card, ".attn_k.")
    heads = [0 if n in without else count for n, count in enumerate(card.kv_heads_per_layer[: layer_count(card)])]
    if card.is_mla:
        return [(card.kv_lora_rank + card.rope_dimensions) * per_value * (count > 0) for count in heads]
    return [count * (card.key_length + card.value_length) * per_value for count in heads]


def _recurrent_values(card: ModelCard) -> int:
    """Of one slot in one layer: the window of the convolution and the state (llama_hparams::n_embd_r, n_embd_s)."""
    kernel, inner, state, groups = (
        _number(card, f"ssm.{name}") for name in ("conv_kernel", "inner_size", "state_size", "group_count")
    )
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner


def _layers_with(card: ModelCard, part: str) -> set[int]:
    return {tensor.layer for tensor in card.tensors if tensor.layer is not None and part in tensor.name}


def _window(card: ModelCard) -> int:
    return _number(card, "attention.sliding_window")


def _number(card: ModelCard, key: str) -> int:
    value = card.metadata.get(f"{card.architecture}.{key}")
    return value if isinstance(value, int) else 0


# Values alive at once for one token, in the widest part of a layer. Fits to the engine's account of published shapes:
# what the allocator of ggml leaves as gaps makes it differ by some percent between models of one kind.


def _attention_floats(card: ModelCard) -> int:
    width, head = card.embedding_length, card.key_length + card.value_length
    if card.is_mla:
        return 4 * width + card.heads * (head + card.key_length_mla + card.value_length_mla)
    if has_unpacked_latent(card):
        return 4 * width + 3 * card.heads * head
    return 3 * width + (card.heads + card.kv_heads) * head


def _dense_floats(card: ModelCard) -> int:
    inner = [
        tensor.shape[0] for tensor in card.tensors if tensor.name.endswith((".ffn_down.weight", "_down_shexp.weight"))
    ]
    return 4 * card.embedding_length + 3 * max(inner, default=0)


def _routed_floats(card: ModelCard) -> int:
    inner = max((tensor.shape[0] for tensor in card.tensors if tensor.name.endswith("ffn_down_exps.weight")), default=0)
    hidden, out = card.experts_used * inner, card.experts_used * card.embedding_length
    # What the experts give is put in the place of what is not used any more, where it is large enough.
    return 5 * card.embedding_length + 3 * hidden + (out if out > 2 * hidden else 0)


def _repacked_types(features: Collection[str]) -> dict[str, int]:
    """Types with a second order for this CPU, and what the number of rows must be a multiple of."""
    if "avx2" in features:
        more = {"Q2_K": 8} if "avx512f" in features else {}
        return {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8, **more}
    if "asimddp" in features:
        return {"Q4_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "IQ4_NL": 4, "MXFP4": 4, "Q8_0": 4, "Q1_0": 4}
    return {}
