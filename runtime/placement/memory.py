"""Computes the memory of a model from its header: weights, KV cache, working buffers, the program. Pure.

Weights and caches (`runtime.placement.cache`) are exact. Working buffers are fitted to the engine's own figures
(`runtime.llama.memory_breakdown`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from runtime.base.types import ByteCount
from runtime.engine.backend import ROWS
from runtime.gguf.card import ModelCard, layer_count, parts
from runtime.gguf.values import ArrayValue
from runtime.placement import buffers, cache
from runtime.placement.cache import CELLS, FLOAT
from runtime.placement.cache_shape import CacheShape, cache_shape

_COPIED = 2  # bytes of a number of a copied key: float16
_MASK = 2  # bytes of the attention mask per token and cell
_CANDIDATE = 12  # struct llama_token_data, of which every sampler has one per token of the vocabulary
_PROGRAM = 64 << 20  # interpreter, dsr, numpy, the engine's libraries and small tables: measured with `dsr chat`
_TABLE_ENTRY = 200  # bytes per token or merge in the engine's tables: measured, 19.8 MiB for the 98 052 of SmolLM2


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes. `weights` are mapped from the file. `compute` is an estimate, and `reason` says what it contains."""

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
class PartSizes:
    """Bytes that each part of a model takes on the device that holds it.

    `layers` are the weights of each layer without its routed experts, `experts` those of the routed experts, and
    `kv_cache` is the cache of each layer. `embedding` are all tables of which a token reads a row. `head` are the
    weights of the output matrix; the local CPU has `shared` bytes of them already in `embedding`. The working buffers
    share their memory: `attention_buffer` is on devices with layers, `expert_buffer` on those with routed experts,
    `logits_buffer` on the local CPU and the device with the head. Each includes the attention mask. `sampling_buffer`
    and `program` are on the local CPU, which also looks up the embedding. `rows` are the tokens of one batch.
    """

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    kv_cache: tuple[int, ...]
    embedding: int
    head: int
    shared: int
    attention_buffer: int
    expert_buffer: int
    logits_buffer: int
    sampling_buffer: int
    program: int
    rows: int

    def need(self, layers: Collection[int], experts: Collection[int], *, head: bool, local: bool) -> MemoryNeed:
        """The memory of a device with `layers`, the routed experts of the layers in `experts`, and perhaps the head."""
        weights = sum(self.layers[n] for n in layers) + sum(self.experts[n] for n in experts)
        weights += self.embedding if local else 0
        weights += self.head - (self.shared if local else 0) if head else 0
        routed = any(self.experts[n] for n in experts)
        outside = self.logits_buffer if head or local else 0
        compute = max(self.attention_buffer if layers else 0, self.expert_buffer if routed else 0, outside)
        return MemoryNeed(
            weights=ByteCount(weights),
            kv_cache=ByteCount(sum(self.kv_cache[n] for n in layers)),
            compute=ByteCount(compute + (self.sampling_buffer + self.program if local else 0)),
            reason=f"estimated: activations of {self.rows} tokens, attention mask"
            + (", logits" if head else "")
            + (", samplers, tokenizer, program" if local else ""),
        )


def need(
    card: ModelCard,
    context: int,
    slots: int = 1,
    kv_type: str = "f16",
    drafted: int = 0,
    *,
    kv_full: bool = False,
    mtp: bool = False,
    rows: int = ROWS,
) -> MemoryNeed:
    """The memory of a whole model on one machine.

    All `slots` share a cache of `context` tokens; with `kv_full` layers with a sliding window keep them all. Up to
    `drafted` draft tokens are checked at once. With `mtp` the layers for multi-token prediction are used as well.
    A pass has at most `rows` tokens."""
    every = range(layer_count(card))
    sizes = part_sizes(card, context, slots, kv_type, drafted, kv_full=kv_full, rows=rows)
    whole = sizes.need(every, every, head=True, local=True)
    if not mtp:
        return whole
    ahead = _ahead(card, context, slots, kv_type, drafted)
    return MemoryNeed(
        weights=ByteCount(whole.weights + ahead.weights),
        kv_cache=ByteCount(whole.kv_cache + ahead.kv_cache),
        compute=ByteCount(whole.compute + ahead.compute),
        reason=f"{whole.reason}; {ahead.reason}",
    )


def host_cache(kv_cache: int, left: int) -> ByteCount:
    """The most bytes of idle texts that a server keeps in host memory (`runtime.engine.moving_cache`).

    As much as the KV cache, but at most a quarter of the bytes that the model leaves (`left`): others want some.
    """
    return ByteCount(max(0, min(kv_cache, left // 4)))


def part_sizes(
    card: ModelCard,
    context: int,
    slots: int = 1,
    kv_type: str = "f16",
    drafted: int = 0,
    *,
    kv_full: bool = False,
    rows: int = ROWS,
) -> PartSizes:
    """The bytes of each part of a model, as `need` sees it."""
    whole = parts(card)
    shape, opened = cache_shape(card), cache.CacheOptions(context, slots, kv_type, kv_full, most_rows=rows)
    outputs, sequences = cache.outputs(shape, opened, drafted), cache.sequences(shape, opened)
    graph_rows = buffers.graph_rows(opened.rows, sequences)
    # The engine frees a mask behind the last layer that reads it: a network lies behind the attention of its layer.
    mask, later = (graph_rows * _mask_bytes(card, replace(shape, layers=shape.layers[n:]), opened) for n in (0, 1))
    quantized = opened.quantized
    # Where sequences keep cells apart, the engine joins each one's keys and compressed rows in a copy.
    copies = sequences * opened.cells * card.key_length * _COPIED if shape.apart else 0
    attending = buffers.attention_floats(card) + buffers.indexer_floats(card, opened.cells)
    attention = graph_rows * attending * FLOAT + mask
    dense = graph_rows * buffers.dense_floats(card, quantized=quantized) * FLOAT + later
    recurrent = buffers.recurrent_floats(card, graph_rows, sequences) * FLOAT + mask
    caches = zip(cache.cache_bytes(shape, opened), cache.checkpoint_bytes(shape, opened), strict=True)
    return PartSizes(
        layers=tuple(sum(layer.always.values()) for layer in whole.layers),
        experts=tuple(sum(layer.routed.values()) for layer in whole.layers),
        kv_cache=tuple(map(sum, caches)),
        embedding=whole.embedding.bytes + whole.tables.bytes,
        head=whole.output.bytes,
        shared=whole.embedding.bytes if whole.tied else 0,
        attention_buffer=max(attention, dense, recurrent) + copies,
        expert_buffer=graph_rows * buffers.routed_floats(card, quantized=quantized) * FLOAT + later,
        logits_buffer=(outputs * card.vocab_size + graph_rows * card.embedding_length) * FLOAT + mask,
        # The engine writes only the rows that a batch asks for.
        sampling_buffer=(max(slots, drafted) + 1) * card.vocab_size * FLOAT + slots * card.vocab_size * _CANDIDATE,
        program=program_size(card),
        rows=opened.rows,
    )


def program_size(card: ModelCard) -> int:
    """Bytes of the program, with the engine's tables of the vocabulary."""
    merges = card.metadata.get("tokenizer.ggml.merges")
    entries = card.vocab_size + (merges.count if isinstance(merges, ArrayValue) else 0)
    return _PROGRAM + entries * _TABLE_ENTRY


def largest_context(need_of: Callable[[int], MemoryNeed], available: int, longest: int) -> int:
    """The largest context in tokens that fits `available` bytes, at most `longest`; 0 if none fits.

    `need_of` gives the memory of a context. All contexts but the longest are multiples of `CELLS`.
    """

    def fits(context: int) -> bool:
        return need_of(context).total <= available

    low, high = 0, longest // CELLS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * CELLS) else (low, middle - 1)
    whole = low == longest // CELLS and fits(longest)
    return longest if whole else low * CELLS


def _ahead(card: ModelCard, context: int, slots: int, kv_type: str, drafted: int) -> MemoryNeed:
    """The memory of the second context, in which `runtime.llama.mtp` runs the MTP layers, and of the recurrent states
    that are then kept for each drafted token."""
    # Its layers keep all cells.
    whole = part_sizes(replace(card, nextn_layers=0), context, slots, kv_type, kv_full=True)
    layers = range(layer_count(card), card.layers)
    own = whole.need(layers, layers, head=False, local=False)
    # Three copies of the hidden states of a batch: output of the model, our copy, input of the MTP layers.
    hidden = 3 * ROWS * card.embedding_length * FLOAT
    shape, opened = cache_shape(card), cache.CacheOptions(context, slots, kv_type)
    logits = cache.outputs(shape, opened, 0) * card.vocab_size * FLOAT
    with_states = sum(cache.cache_bytes(shape, replace(opened, undone=drafted)))
    states = with_states - sum(cache.cache_bytes(shape, opened))
    return MemoryNeed(
        weights=own.weights,
        kv_cache=ByteCount(own.kv_cache + states),
        compute=ByteCount(max(own.compute, whole.logits_buffer) + logits + hidden),
        reason="a second context for the layers that predict ahead",
    )


def warning(card: ModelCard) -> str | None:
    """A warning about the memory of this file; None if there is nothing to say."""
    if not buffers.has_unpacked_latent(card):
        return None
    times = round(card.kv_heads * (card.key_length + card.value_length) / (card.kv_lora_rank + card.rope_dimensions))
    return (
        f"{card.name} is an old conversion without the compressed KV cache of MLA: its cache takes {times} times "
        f"the memory of a newer file of the same model"
    )


def _mask_bytes(card: ModelCard, shape: CacheShape, opened: cache.CacheOptions) -> int:
    """Bytes of one token in the attention masks, with the scores that lie beside them."""
    masks = 2 if buffers.is_indexed(card) else 1  # the indexer has one, too
    return int(cache.masked_cells(shape, opened) * (masks * _MASK + FLOAT * buffers.scored_floats(card)))
