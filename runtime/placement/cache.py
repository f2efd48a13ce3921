"""Computes the bytes of each layer's cache. Pure.

Attention layers keep keys and values of all cells, or of a sliding window alone (src/llama-kv-cache-iswa.cpp).
Recurrent layers keep a state for each sequence (src/llama-memory-recurrent.cpp), compressed caches a row for some
tokens (src/llama-kv-cache-dsv4.cpp). A checkpoint copies the states and windows of one sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from runtime.engine.backend import ROWS, keeps_windows_alone, sequences_for
from runtime.engine.prefix_plan import planned_checkpoints
from runtime.gguf.kv_types import kv_types
from runtime.placement.cache_shape import CacheShape, LayerCache

CELLS = 256  # tokens; caches grow in these steps
FLOAT = 4


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How a cache is opened: `slots` samples share `context` tokens. `full`: windowed layers keep all cells, too.

    Recurrent layers keep `undone` more states for each sequence, to undo drafts. A pass has at most `most_rows` tokens.
    """

    context: int
    slots: int = 1
    kv_type: str = "f16"
    full: bool = False
    undone: int = 0
    most_rows: int = ROWS

    @property
    def cells(self) -> int:
        return -(-self.context // CELLS) * CELLS

    @property
    def quantized(self) -> bool:
        """Whether keys are kept in blocks, so that the engine rotates them."""
        return kv_types(self.kv_type).keys.block > 1

    @property
    def rows(self) -> int:
        """The tokens of one batch."""
        return min(self.most_rows, self.cells)


def cache_bytes(shape: CacheShape, options: CacheOptions) -> tuple[int, ...]:
    """Bytes of each layer's cache."""
    narrow, count = _narrow_cells(shape, options), sequences(shape, options)
    states, copies = count * (1 + options.undone), count if shape.apart else 1
    return tuple(
        copies * _tokens_bytes(layer, narrow if layer.windowed else options.cells, options)
        + _further_bytes(layer, options, copies)
        + states * layer.state * FLOAT
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
    attending = [layer for layer in shape.layers if layer.keys]
    whole = options.cells if any(not layer.windowed for layer in attending) else 0
    return whole + (_narrow_cells(shape, options) if any(layer.windowed for layer in attending) else 0)


def outputs(shape: CacheShape, options: CacheOptions, drafted: int) -> int:
    """The rows of logits that the engine makes room for: those of a batch, but at least one for each sequence."""
    return max(options.slots + 1, drafted + 1, sequences(shape, options))


def sequences(shape: CacheShape, options: CacheOptions) -> int:
    """The sequences that the engine opens."""
    return sequences_for(options.slots, shares_cells=_shares_cells(shape, options))


def _narrow_cells(shape: CacheShape, options: CacheOptions) -> int:
    """The cells of layers with a sliding window: a window for each sequence, and one batch."""
    if not _keeps_windows_alone(shape, options):
        return options.cells
    needed = shape.window * sequences(shape, options) + options.rows
    return min(options.cells, -(-needed // CELLS) * CELLS)


def _shares_cells(shape: CacheShape, options: CacheOptions) -> bool:
    return not _keeps_windows_alone(shape, options) and not any(layer.state for layer in shape.layers)


def _keeps_windows_alone(shape: CacheShape, options: CacheOptions) -> bool:
    return not options.full and keeps_windows_alone(shape.window, options.context, options.slots, options.most_rows)


def _tokens_bytes(layer: LayerCache, cells: int, options: CacheOptions) -> int:
    keys, values = _widths(options)
    return math.ceil(cells * (layer.keys * keys + layer.values * values))


def _further_bytes(layer: LayerCache, options: CacheOptions, copies: int) -> int:
    """The bytes of an indexer's cache, and of compressed rows."""
    keys, values = _widths(options)
    bytes_ = math.ceil(options.cells * (layer.index_keys * keys + layer.index_values * values))
    for width, tokens in layer.rows:
        rows = -(-max(1, -(-options.cells // tokens)) // CELLS) * CELLS
        bytes_ += copies * math.ceil(rows * width * keys)
    return bytes_


def _widths(options: CacheOptions) -> tuple[Fraction, Fraction]:
    """Bytes of a number of the keys and of the values."""
    types = kv_types(options.kv_type)
    return Fraction(types.keys.width, types.keys.block), Fraction(types.values.width, types.values.block)
