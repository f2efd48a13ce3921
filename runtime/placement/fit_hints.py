"""Hints on what fits instead of a model that does not: context, cache type, quantization, experts, memory. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from runtime.gguf.card import ModelCard
from runtime.gguf.kv_types import kv_types
from runtime.machine.machine import free_for
from runtime.placement.compared import SKETCH
from runtime.placement.memory import PartSizes

# (context, type of the KV cache) -> missing bytes
Lacks = Callable[[int, str], int]

_STEP = 256  # tokens by which a cache grows
_SHORTEST = 2 * _STEP  # tokens; a shorter context is of little use
_SMALLER_CACHE = "q8_0"
_FEWEST_BITS = 1.6  # per weight: the smallest type there is


def hints(card: ModelCard, sizes: PartSizes, context: int, kv_type: str, missing: int, lacks: Lacks) -> tuple[str, ...]:
    """The changes that make the model fit, each on its own."""
    found = []
    cache = sum(sizes.kv_cache)
    if missing <= cache:  # the buffers shrink little with the context
        if shorter := _longest_context(context, kv_type, lacks):
            found.append(f"a context of {shorter} tokens fits")
        smaller = kv_types(_SMALLER_CACHE).bits < kv_types(kv_type).bits
        if smaller and lacks(context, _SMALLER_CACHE) == 0:
            found.append(f"a KV cache of type {_SMALLER_CACHE} fits")
    bits = card.bits_per_weight * (1 - missing / card.weights_size) if card.weights_size else 0.0
    bits = int(bits * 10) / 10
    if bits >= _FEWEST_BITS:
        found.append(f"a quantization with {bits:.1f} bits per weight fits (this file has {card.bits_per_weight:.1f})")
    if kept := _experts_that_fit(card, sizes, missing):
        # The catalogue does not know how many experts a model has.
        sketched = card.architecture == SKETCH
        share = f"{kept / card.experts:.0%} of the experts" if sketched else f"{kept} of the {card.experts} experts"
        found.append(f"{share} of each layer fit: dsr experts prune keeps those of a task")
    largest = max(map(sum, zip(sizes.layers, sizes.experts, sizes.kv_cache, strict=True)), default=0)
    buffer = max(sizes.attention_buffer, sizes.expert_buffer)
    found.append(f"another node with {free_for(missing + largest + buffer)} of free memory is enough")
    return tuple(found)


def _longest_context(context: int, kv_type: str, lacks: Lacks) -> int:
    """The longest context below `context` that fits; 0 if none does."""
    low, high = _SHORTEST // _STEP - 1, (context - 1) // _STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if lacks(middle * _STEP, kv_type) else (middle, high)
    return low * _STEP if low * _STEP >= _SHORTEST else 0


def _experts_that_fit(card: ModelCard, sizes: PartSizes, missing: int) -> int:
    """How many of each layer's routed experts fit; 0 if they are fewer than one token uses."""
    each = sum(sizes.experts) / card.experts if card.experts else 0.0
    kept = card.experts - math.ceil(missing / each) if each else 0
    return kept if kept >= card.experts_used else 0
