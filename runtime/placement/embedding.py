"""How a model is opened for embeddings: the longest text, the size of a batch, and the memory of both. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount
from runtime.engine.backend import ROWS
from runtime.engine.embedding import EmbedOptions
from runtime.gguf.card import ModelCard, parts
from runtime.gguf.embedding import EmbeddingForm, embedding_form
from runtime.gguf.engine_lists import ENCODERS
from runtime.placement import buffers, cache
from runtime.placement.cache_shape import cache_shape, number
from runtime.placement.memory import MemoryNeed, program_size

SEQUENCES = 32  # texts in a batch of 512 tokens are seldom more
# Rows of logits that a batch makes room for. The engine clears them also where nobody reads them (output_reserve).
_LOGITS = 128 << 20
# A longer text is seldom a text to find something by, and attention in one pass takes memory with its square.
_ENOUGH = 8192
SHORTEST = 512
_MASK = 6  # bytes per pair of tokens: the mask as float32, and its copy as float16 for flash attention
_RELATIVE = 12  # bytes per pair of tokens and head in T5's attention: distances, bias, scores


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """How to open a model for embeddings, and the memory for that."""

    form: EmbeddingForm
    options: EmbedOptions
    need: MemoryNeed


def plan_embedding(card: ModelCard, available: int, longest: int | None = None) -> EmbeddingPlan:
    """Opens for texts of `longest` tokens; with None, of as many as the model reads, memory has room for, and 8192.

    Raises Incompatible for a model that gives no vectors, and DoesNotFit. Weights are mapped: they need not fit.
    """
    form = embedding_form(card)
    wanted = min(form.longest, longest or _ENOUGH)
    if longest is not None and longest > form.longest:
        raise DoesNotFit(
            f"{card.name} embeds texts of at most {form.longest} tokens, not {longest}",
            hint=f"--ctx-size {form.longest}",
        )
    while True:
        plan = _plan(card, form, wanted)
        beyond = plan.need.beyond_weights
        if beyond <= available:
            return plan
        if longest is not None or wanted <= SHORTEST:
            raise DoesNotFit(
                f"to embed texts of {wanted} tokens {card.name} needs {beyond} in addition to its "
                f"weights, and {ByteCount(available)} of memory is free",
                hint="choose a smaller model, or close other programs"
                if wanted <= SHORTEST
                else f"try --ctx-size {max(SHORTEST, wanted // 2)}",
            )
        wanted = max(SHORTEST, wanted // 2)


def _plan(card: ModelCard, form: EmbeddingForm, longest: int) -> EmbeddingPlan:
    shape = cache_shape(card)
    # A recurrent layer keeps a state for each sequence, and the engine computes one sequence at a time.
    sequences = 1 if any(layer.state for layer in shape.layers) else SEQUENCES
    rows = _LOGITS // (max(1, card.vocab_size) * cache.FLOAT)
    together = min(ROWS, max(2 * SEQUENCES, rows))
    # The engine rounds the tokens of its largest graph up to a multiple of the sequences, but not the outputs. The mean
    # of unequal numbers of both ends the process (graph_reserve).
    room = buffers.graph_rows(together if form.in_parts else max(together, longest), sequences)
    opened = cache.CacheOptions(max(longest, room), full=True)
    cached = sum(cache.cache_bytes(shape, opened)) if form.caches else 0
    whole = parts(card)
    weights = sum(layer.bytes for layer in (whole.embedding, whole.tables, *whole.layers)) + (
        0 if whole.tied else whole.output.bytes
    )
    need = MemoryNeed(
        ByteCount(weights),
        ByteCount(cached),
        ByteCount(_buffers(card, form, room, opened)),
        f"a batch of {room} tokens",
    )
    options = EmbedOptions(form.pooling, form.in_parts, longest, together, room, sequences)
    return EmbeddingPlan(form, options, need)


def _buffers(card: ModelCard, form: EmbeddingForm, rows: int, opened: cache.CacheOptions) -> int:
    """Working buffers, with those of the program. Models that write text compute the logits of every token, too."""
    cells = opened.cells if form.caches and card.architecture != "t5encoder" else rows
    layer = max(
        buffers.attention_floats(card),
        buffers.dense_floats(card, quantized=False),
        buffers.routed_floats(card, quantized=False) if card.experts else 0,
    )
    recurrent = buffers.recurrent_floats(card, rows, 1)  # one sequence at a time
    mask = rows * cells * _MASK * (2 if number(card, "attention.sliding_window") else 1)
    relative = rows * rows * card.heads * _RELATIVE if card.architecture == "t5encoder" else 0
    # The graph of an encoder has no logits, but the engine makes room for them.
    logits = rows * card.vocab_size * cache.FLOAT * (1 if card.architecture in ENCODERS else 2)
    return (
        max(rows * layer, recurrent) * cache.FLOAT
        + mask
        + relative
        + logits
        + 2 * rows * card.embedding_length * cache.FLOAT
        + program_size(card)
    )
