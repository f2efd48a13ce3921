"""Reads from a model's header what each layer caches. Pure.

Sources, in src/ of llama.cpp: which kind of memory an architecture has (llama_model::create_memory in llama-model.cpp),
which layers have a window or a state (load_arch_hparams in models/), and how much of each (llama-hparams.cpp). MLA
models cache only the compressed latent, and only once, because their values are a view of their keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.gguf.card import ModelCard, layer_count
from runtime.gguf.values import ArrayValue
from runtime.placement.compared import SKETCH

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
_LFM2 = "lfm2"  # all layers with attention; lfm2moe has no windows
_OWN_PATTERN = ("dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35", SKETCH, _LFM2)
_WINDOWED_EXAONE4 = 64  # layers; the smaller model has no window, whatever its file says
# Gemma 3n's later layers use the caches of earlier ones, whatever its file says; Gemma 4 says how many do.
_OWN_CACHES = {"gemma3n": 20}

_RECURRENT = (".ssm_", ".shortconv.", ".time_mix_")
_TOKENS_SHIFTED = 2  # hidden states that RWKV remembers of the last token, if the file does not say

# Sparse attention: an indexer chooses the tokens that a layer sees, by keys of its own. Those of the first group are
# K-only (llama-kv-cache-dsa.cpp, llama-memory-hybrid-idx.cpp); MiniMax M3's cache has values, too
# (llama-kv-cache-msa.cpp).
_INDEXED = ("deepseek32", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "qwen4exp")
_INDEXED_WITH_VALUES = "minimax-m3"
_LONG_GLM = 1 << 20  # tokens: GLM 5.2 shares indexers between layers also where its file does not say so
_FULL_INDEXERS = 2, 4  # GLM 5.2: the first two layers, then every fourth (GLM_5_2_DEFAULT_INDEXER_TYPES)
_INDEXED_MTP = "glm5-next"  # its MTP layers have an indexer, too
_POOLED = 3  # GLM 5 Next caches key, gate and pooled value of each token
# DeepSeek V4 keeps a compressed row for each 4 or 128 tokens, and tokens that are not compressed yet
# (llama-kv-cache-dsv4.cpp).
_COMPRESSED = "deepseek4"
_SPARSE, _HEAVY = 4, 128
# These cache their MTP layers in the main context as well: create_memory gives them no filter.
_MTP_CACHED = ("bailingmoe3", _COMPRESSED)


@dataclass(frozen=True, slots=True)
class LayerCache:
    """How many numbers a layer caches: `keys` and `values` for each token, `state` for each sequence.

    A `windowed` layer sees only a sliding window. `state` is that of a recurrent layer, 0 for others. An indexer has
    `index_keys` and `index_values` for each token, without a window. `rows` are (numbers, tokens): a compressed row of
    so many numbers for each so many tokens.
    """

    keys: int
    values: int
    windowed: bool
    state: int
    index_keys: int = 0
    index_values: int = 0
    rows: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The caches of a model's layers. `window` is the length of the sliding window in tokens, 0 without one.

    `apart`: each sequence has cells for a whole context of its own, so that nothing is shared.
    """

    layers: tuple[LayerCache, ...]
    window: int
    apart: bool = False


def cache_shape(card: ModelCard) -> CacheShape:
    """The cache of each layer, from the header."""
    if card.architecture == _COMPRESSED:
        return CacheShape(_compressed_layers(card), 0, apart=True)
    layers, window = layer_count(card), _window(card)
    recurrent = _recurrent_layers(card)
    # Layers with a recurrent state have no attention, whatever the header says, except where a layer has both.
    without = recurrent - _layers_with(card, ".attn_k.")
    own = card.layers - number(card, "attention.shared_kv_layers")
    end = min(layers, _OWN_CACHES.get(card.architecture, own))
    windowed = _windowed_layers(card, recurrent) if window else set()
    index, state = _index(card), _state_values(card)
    found = []
    for n in range(layers):
        heads = card.kv_heads_per_layer[n] if n < min(end, len(card.kv_heads_per_layer)) and n not in without else 0
        keys, values = _attention_values(card, heads, narrow=n in windowed)
        index_keys, index_values = index.get(n, (0, 0)) if heads and n not in windowed else (0, 0)
        extra = _ngram_state(card, n) if n in recurrent else 0
        found.append(
            LayerCache(keys, values, n in windowed, state + extra if n in recurrent else 0, index_keys, index_values)
        )
    if found:
        found[-1] = _with_further(card, found[-1])
    return CacheShape(tuple(found), window)


def passes(card: ModelCard) -> int:
    """How often a token passes through each layer: Nanbeige loops over its layers, and caches each pass."""
    return max(1, number(card, "num_loops")) if card.architecture == "nanbeige" else 1


def head_lengths(card: ModelCard, *, narrow: bool) -> tuple[int, int]:
    """The numbers of a head's keys and of its values; `narrow`: in a layer with a sliding window."""
    short = number(card, "attention.key_length_swa"), number(card, "attention.value_length_swa")
    keys, values = short if narrow else (0, 0)
    return keys or card.key_length, values or card.value_length


def number(card: ModelCard, key: str) -> int:
    """A number of the architecture's metadata; 0 without one."""
    value = card.metadata.get(f"{card.architecture}.{key}")
    return value if isinstance(value, int) else 0


def numbers(card: ModelCard, key: str) -> tuple[int, ...]:
    """A list of numbers of the architecture's metadata; a single one counts for each layer. () without any."""
    value = card.metadata.get(f"{card.architecture}.{key}")
    if isinstance(value, ArrayValue):
        return tuple(map(int, value.numbers())) if value.type != "str" else ()
    return (value,) * card.layers if isinstance(value, int) else ()


def _attention_values(card: ModelCard, heads: int, *, narrow: bool) -> tuple[int, int]:
    keys, values = (heads * passes(card) * length for length in head_lengths(card, narrow=narrow))
    return (keys, 0) if card.is_mla else (keys, values)


def _with_further(card: ModelCard, last: LayerCache) -> LayerCache:
    """The last layer with the caches that lie behind it: of MTP layers, and of Granite Switch's router."""
    further = 0
    if card.architecture in _MTP_CACHED:
        further = sum(card.kv_heads_per_layer[layer_count(card) :])
    if card.architecture == "graniteswitch":
        further = 1
    keys, values = _attention_values(card, further, narrow=False)
    return replace(last, keys=last.keys + keys, values=last.values + values)


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
    if card.architecture == _LFM2:
        return set(every) - recurrent
    pattern = card.metadata.get(f"{card.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, ArrayValue):
        listed = pattern.numbers() if pattern.type != "str" else ()
        return {n for n in every if n < len(listed) and listed[n]}
    period = pattern if isinstance(pattern, int) else (_FIRST_OF | _LAST_OF).get(card.architecture, 1)
    if period < 1:
        return set(every)
    whole = 0 if card.architecture in _FIRST_OF else period - 1
    return {n for n in every if n % period != whole}


def _index(card: ModelCard) -> dict[int, tuple[int, int]]:
    """The indexer's keys and values of each layer that has an indexer of its own."""
    length, last = number(card, "attention.indexer.key_length"), layer_count(card)
    if card.architecture != _INDEXED_MTP:
        last = min(last, card.layers - number(card, "nextn_predict_layers"))
    every = range(last)
    if card.architecture == _INDEXED_WITH_VALUES:
        return {n: (length, card.value_length) for n in every if n >= number(card, "leading_dense_block_count")}
    if card.architecture not in _INDEXED or not number(card, "attention.indexer.top_k"):
        return {}
    keys = length * (_POOLED if number(card, "attention.indexer.kpool") else 1)
    full = numbers(card, "attention.indexer.types") or _usual_indexers(card)
    return {n: (keys, 0) for n in every if n < len(full) and full[n]}


def _usual_indexers(card: ModelCard) -> tuple[int, ...]:
    """Which layers have an indexer of their own where the file does not say it."""
    if card.architecture == "hy_v4":
        return (0,) * card.layers
    if card.architecture == "glm-dsa" and card.context_length >= _LONG_GLM:
        first, step = _FULL_INDEXERS
        return tuple(int(n < first or (n - first) % step == 0) for n in range(card.layers))
    return (1,) * card.layers


def _compressed_layers(card: ModelCard) -> tuple[LayerCache, ...]:
    """Keys of every token, compressed rows, and the state of the compressors, two tensors for each."""
    ratios, length = numbers(card, "attention.compress_ratios"), card.key_length
    indexer = number(card, "attention.indexer.key_length")
    found = []
    for n in range(layer_count(card)):
        rows: tuple[tuple[int, int], ...] = ()
        state = 0
        if n < len(ratios) and ratios[n] == _SPARSE:
            rows = ((length + indexer, _SPARSE),)
            state = 2 * (2 * length + 2 * indexer) * 2 * _SPARSE
        if n < len(ratios) and ratios[n] == _HEAVY:
            rows = ((length, _HEAVY),)
            state = 2 * length * _HEAVY
        found.append(LayerCache(card.kv_heads_per_layer[n] * length, 0, False, state, rows=rows))
    if found:
        further = card.kv_heads_per_layer[layer_count(card) :]
        found[-1] = replace(found[-1], keys=found[-1].keys + sum(further) * length)
    return tuple(found)


def _state_values(card: ModelCard) -> int:
    """Numbers of one sequence in one recurrent layer: convolution window and state."""
    width = card.embedding_length
    if head := number(card, "wkv.head_size"):
        return (number(card, "token_shift_count") or _TOKENS_SHIFTED) * width + width * head
    if convolution := number(card, "shortconv.l_cache"):
        return width * (convolution - 1)
    kernel = number(card, "ssm.conv_kernel")
    if head := number(card, "kda.head_dim"):
        return 3 * ((kernel or 4) - 1) * card.heads * head + head * head * card.heads
    if card.architecture == "minimax-01":
        return card.key_length**2 * card.heads
    inner, state, groups = (number(card, f"ssm.{name}") for name in ("inner_size", "state_size", "group_count"))
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner


def _ngram_state(card: ModelCard, layer: int) -> int:
    """The convolution window of a module for n-gram embeddings (llama_hparams::ple_conv_state)."""
    if layer not in numbers(card, "ple.layers"):
        return 0
    window = (number(card, "ple.conv_kernel") - 1) * number(card, "ple.ngram_size")
    return max(0, window) * number(card, "hyper_connection.count") * card.embedding_length


def _recurrent_layers(card: ModelCard) -> set[int]:
    # MiniMax-01's recurrent layers are told apart by their gate.
    parts = (".attn_gate.",) if card.architecture == "minimax-01" else _RECURRENT
    return {n for part in parts for n in _layers_with(card, part) if n < layer_count(card)}


def _layers_with(card: ModelCard, part: str) -> set[int]:
    return {tensor.layer for tensor in card.tensors if tensor.layer is not None and part in tensor.name}
