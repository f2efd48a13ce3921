"""Computes the caches of each layer from a model's header. Pure.

Attention layers keep keys and values of all cells, or of a sliding window alone (src/llama-kv-cache-iswa.cpp).
Recurrent layers keep a state for each sequence (src/llama-memory-recurrent.cpp; llama_hparams::n_embd_r and n_embd_s).
MLA models cache only the compressed latent, and only once, because their values are a view of their keys. A checkpoint
copies the states and windows of one sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from runtime.engine.backend import keeps_windows_alone, sequences_for
from runtime.engine.prefix_plan import planned_checkpoints
from runtime.gguf.card import ModelCard, layer_count
from runtime.gguf.kv_types import kv_types
from runtime.gguf.values import ArrayValue

CELLS = 256  # tokens; caches grow in these steps
UBATCH = 512  # tokens in one pass through the graph, llama.cpp's default
FLOAT = 4

# The layers with a window where the file has no pattern: every n-th layer sees everything, the last of each n or the
# first (load_swa_pattern in src/models/).
_LAST_OF = {
    "afmoe": 4, "cohere2": 4, "exaone-moe": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2,
    "llama4": 4, "mellum": 4, "muse-glimmer": 4, "olmo2": 4, "plamo3": 8,
}  # fmt: skip
_FIRST_OF = {"cohere2moe": 4, "laguna": 4, "smallthinker": 4}
# Windows that the file does not name: the engine's own default, and numbers that replace the file's.
_WINDOWS = {"gemma2": 4096, "exaone-moe": 128, "llama4": 8192}
_FIXED_WINDOWS = {"smallthinker": 4096, "llama4": 8192}
_LFM2 = ("lfm2", "lfm2moe")  # all layers with attention
_OWN_PATTERN = ("dots3note", "gemma4", "granite-swa", "maple", "mimo2", "spark2-5", "step35", *_LFM2)
_WINDOWED_EXAONE4 = 64  # layers; the smaller model has no window, whatever its file says
# Gemma 3n's later layers use the caches of earlier ones; Gemma 4 says how many do.
_OWN_CACHES = {"gemma3n": 20}
_RECURRENT = (".ssm_", ".shortconv.", ".time_mix_")
_TOKENS_SHIFTED = 2  # hidden states that RWKV remembers of the last token, if the file does not say


@dataclass(frozen=True, slots=True)
class LayerCache:
    """How many numbers a layer caches: `keys` and `values` for each token, `state` for each sequence.

    A `windowed` layer sees only a sliding window. `state` is that of a recurrent layer, 0 for others.
    """

    keys: int
    values: int
    windowed: bool
    state: int


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The caches of a model's layers. `window` is the length of the sliding window in tokens, 0 without one."""

    layers: tuple[LayerCache, ...]
    window: int


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How a cache is opened: `slots` samples share `context` tokens. `full`: windowed layers keep all cells, too.

    Recurrent layers keep `undone` more states for each sequence, to undo drafts.
    """

    context: int
    slots: int = 1
    kv_type: str = "f16"
    full: bool = False
    undone: int = 0

    @property
    def cells(self) -> int:
        return -(-self.context // CELLS) * CELLS

    @property
    def rows(self) -> int:
        """The tokens of one batch."""
        return min(UBATCH, self.cells)


def cache_shape(card: ModelCard) -> CacheShape:
    """The cache of each layer, from the header."""
    layers, window = layer_count(card), _window(card)
    recurrent = _recurrent_layers(card)
    # Layers with a recurrent state have no attention, whatever the header says, except where a layer has both.
    without = recurrent - _layers_with(card, ".attn_k.")
    end = min(layers, _OWN_CACHES.get(card.architecture, card.layers) - _number(card, "attention.shared_kv_layers"))
    windowed = _windowed_layers(card, recurrent) if window else set()
    lengths = card.key_length, card.value_length
    narrow = _number(card, "attention.key_length_swa"), _number(card, "attention.value_length_swa")
    state = _state_values(card)
    found = []
    for n in range(layers):
        heads = card.kv_heads_per_layer[n] if n < min(end, len(card.kv_heads_per_layer)) and n not in without else 0
        keys, values = (
            heads * ((short if n in windowed else 0) or long) for short, long in zip(narrow, lengths, strict=True)
        )
        if card.is_mla:
            keys, values = (card.kv_lora_rank + card.rope_dimensions) * (heads > 0), 0
        found.append(LayerCache(keys, values, n in windowed, state if n in recurrent else 0))
    return CacheShape(tuple(found), window)


def cache_bytes(shape: CacheShape, options: CacheOptions) -> tuple[int, ...]:
    """Bytes of each layer's cache."""
    narrow = _narrow_cells(shape, options)
    states = _sequences(shape, options) * (1 + options.undone)
    return tuple(
        _tokens_bytes(layer, narrow if layer.windowed else options.cells, options) + states * layer.state * FLOAT
        for layer in shape.layers
    )


def checkpoint_bytes(shape: CacheShape, options: CacheOptions) -> tuple[int, ...]:
    """Bytes of each layer in the most checkpoints that the engine keeps."""
    count = 0 if _shares_cells(shape, options) else planned_checkpoints(options.slots)
    seen = shape.window if _keeps_windows_alone(shape, options) else 0
    return tuple(
        count * (_tokens_bytes(layer, seen if layer.windowed else 0, options) + layer.state * FLOAT)
        for layer in shape.layers
    )


def masked_cells(shape: CacheShape, options: CacheOptions) -> int:
    """The cells for which each token has a number in a mask: those of each kind of attention layer."""
    if not any(layer.keys for layer in shape.layers):
        return 0
    return options.cells + (_narrow_cells(shape, options) if shape.window else 0)


def outputs(shape: CacheShape, options: CacheOptions, drafted: int) -> int:
    """The rows of logits that the engine makes room for: those of a batch, but at least one for each sequence."""
    return max(options.slots + 1, drafted + 1, _sequences(shape, options))


def _narrow_cells(shape: CacheShape, options: CacheOptions) -> int:
    """The cells of layers with a sliding window: a window for each sequence, and one batch."""
    if not _keeps_windows_alone(shape, options):
        return options.cells
    needed = shape.window * _sequences(shape, options) + options.rows
    return min(options.cells, -(-needed // CELLS) * CELLS)


def _sequences(shape: CacheShape, options: CacheOptions) -> int:
    return sequences_for(options.slots, shares_cells=_shares_cells(shape, options))


def _shares_cells(shape: CacheShape, options: CacheOptions) -> bool:
    return not _keeps_windows_alone(shape, options) and not any(layer.state for layer in shape.layers)


def _keeps_windows_alone(shape: CacheShape, options: CacheOptions) -> bool:
    return not options.full and keeps_windows_alone(shape.window, options.context, options.slots, UBATCH)


def _tokens_bytes(layer: LayerCache, cells: int, options: CacheOptions) -> int:
    types = kv_types(options.kv_type)
    keys, values = (Fraction(kind.width, kind.block) for kind in (types.keys, types.values))
    return math.ceil(cells * (layer.keys * keys + layer.values * values))


def _window(card: ModelCard) -> int:
    architecture = card.architecture
    if architecture == "exaone4" and layer_count(card) != _WINDOWED_EXAONE4:
        return 0
    if architecture not in _LAST_OF | _FIRST_OF and architecture not in _OWN_PATTERN:
        return 0
    given = card.metadata.get(f"{architecture}.attention.sliding_window")
    size = given if isinstance(given, int) else _WINDOWS.get(architecture, 0)
    return _FIXED_WINDOWS.get(architecture, size) if size else 0


def _windowed_layers(card: ModelCard, recurrent: set[int]) -> set[int]:
    """The layers that see a sliding window alone (llama_hparams::is_swa)."""
    every = range(layer_count(card))
    if card.architecture in _LFM2:
        return set(every) - recurrent
    pattern = card.metadata.get(f"{card.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, ArrayValue):
        numbers = pattern.numbers() if pattern.type != "str" else ()
        return {n for n in every if n < len(numbers) and numbers[n]}
    period = pattern if isinstance(pattern, int) else (_FIRST_OF | _LAST_OF).get(card.architecture, 1)
    if period < 1:
        return set(every)
    whole = 0 if card.architecture in _FIRST_OF else period - 1
    return {n for n in every if n % period != whole}


def _state_values(card: ModelCard) -> int:
    """Numbers of one sequence in one recurrent layer: convolution window and state."""
    width = card.embedding_length
    if head := _number(card, "wkv.head_size"):
        return (_number(card, "token_shift_count") or _TOKENS_SHIFTED) * width + width * head
    if convolution := _number(card, "shortconv.l_cache"):
        return width * (convolution - 1)
    kernel = _number(card, "ssm.conv_kernel")
    if head := _number(card, "kda.head_dim"):
        return 3 * ((kernel or 4) - 1) * card.heads * head + head * head * card.heads
    if card.architecture == "minimax-01":
        return card.key_length**2 * card.heads
    inner, state, groups = (_number(card, f"ssm.{name}") for name in ("inner_size", "state_size", "group_count"))
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner


def _recurrent_layers(card: ModelCard) -> set[int]:
    # MiniMax-01's recurrent layers are told apart by their gate.
    parts = (".attn_gate.",) if card.architecture == "minimax-01" else _RECURRENT
    return {n for part in parts for n in _layers_with(card, part) if n < layer_count(card)}


def _layers_with(card: ModelCard, part: str) -> set[int]:
    return {tensor.layer for tensor in card.tensors if tensor.layer is not None and part in tensor.name}


def _number(card: ModelCard, key: str) -> int:
    value = card.metadata.get(f"{card.architecture}.{key}")
    return value if isinstance(value, int) else 0
