"""What does not fit: the nearest things that do. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from runtime.gguf import types
from runtime.gguf.card import ModelCard
from runtime.machine.machine import free_for
from runtime.placement.memory import Costs

# Bytes missing with another context and another type of KV cache.
Lacks = Callable[[int, str], int]

_STEP = 256  # tokens by which a cache grows
_SHORTEST = 2 * _STEP  # tokens; with less of a context one cannot ask much
_SMALLER_CACHE = "q8_0"
_FEWEST_BITS = 1.6  # per weight: the smallest type there is


def hints(card: ModelCard, need: Costs, context: int, kv_type: str, missing: int, lacks: Lacks) -> tuple[str, ...]:
    """Each one that would do alone."""
    found = []
    cache = sum(need.kv_cache)
    if missing <= cache:  # what a shorter context frees in buffers beside it is little
        if shorter := _longest_context(context, kv_type, lacks):
            found.append(f"a context of {shorter} tokens fits")
        kinds = types.kv_type(kv_type), types.kv_type(_SMALLER_CACHE)
        smaller = kinds[1].bits_per_weight < kinds[0].bits_per_weight
        if smaller and lacks(context, _SMALLER_CACHE) == 0:
            found.append(f"a KV cache of type {_SMALLER_CACHE} fits")
    bits = card.bits_per_weight * (1 - missing / card.weights_size) if card.weights_size else 0.0
    bits = int(bits * 10) / 10
    if bits >= _FEWEST_BITS:
        found.append(f"a quantization of {bits:.1f} bits per weight fits (this one has {card.bits_per_weight:.1f})")
    if kept := _experts_that_fit(card, need, missing):
        found.append(f"{kept} of the {card.experts} experts of each layer fit: dsr experts prune keeps a task's own")
    largest = max(map(sum, zip(need.layers, need.experts, need.kv_cache, strict=True)), default=0)
    buffer = max(need.attending, need.routing)
    found.append(f"another node with {free_for(missing + largest + buffer)} of free memory would do")
    return tuple(found)


def _longest_context(context: int, kv_type: str, lacks: Lacks) -> int:
    """The longest below `context` that fits; 0 if none does."""
    low, high = _SHORTEST // _STEP - 1, (context - 1) // _STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if lacks(middle * _STEP, kv_type) else (middle, high)
    return low * _STEP if low * _STEP >= _SHORTEST else 0


def _experts_that_fit(card: ModelCard, need: Costs, missing: int) -> int:
    """How many of each layer's routed experts there is room for; 0 where those are not enough to run with."""
    each = sum(need.experts) / card.experts if card.experts else 0.0
    kept = card.experts - math.ceil(missing / each) if each else 0
    return kept if kept >= card.experts_used else 0
