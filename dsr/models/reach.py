"""How long one text of a model may be: as long as in its training, or longer with YaRN. Pure."""

from __future__ import annotations

import math

from dsr.models.catalog import CatalogEntry
from runtime.base.errors import DoesNotFit
from runtime.gguf.card import ModelCard
from runtime.gguf.rope import Yarn, why_not_yarn, yarn_of_header

# The context of a model where nobody asks for one: a long thought with its answer, or a conversation. A larger cache
# would take the memory of other programs, or push layers off a GPU.
DEFAULT_CONTEXT = 16384  # tokens

# The largest factor that dsr advises without a word of the vendor. The paper claims about 2 without training (arXiv
# 2309.00071, introduction), and larger ones were never measured here: docs/log.md has SmolLM2 with 1.5.
_ADVISED_FACTOR = 2.0
_STEP = 0.5  # of a factor that dsr chooses


def reach_of(card: ModelCard, yarn: Yarn | None) -> int:
    """The most tokens of one text, answer included."""
    return yarn.reach if yarn is not None else card.context_length


def documented_yarn(card: ModelCard, entry: CatalogEntry | None) -> Yarn | None:
    """The YaRN that the file or the vendor states."""
    return yarn_of_header(card) or (entry.yarn if entry is not None else None)


def farthest(card: ModelCard, entry: CatalogEntry | None) -> Yarn | None:
    """The YaRN with the longest reach that dsr advises; None if YaRN cannot stretch this model."""
    if not card.context_length or why_not_yarn(card) is not None:
        return None
    return documented_yarn(card, entry) or Yarn(_ADVISED_FACTOR, card.context_length)


def check_chunks(card: ModelCard, tokens: int) -> None:
    """Raise DoesNotFit for chunks of text that are longer than the trained length: their figures mean nothing."""
    if tokens > card.context_length:
        raise DoesNotFit(
            f"chunks of {tokens} tokens are too long for {card.name}: it was trained with texts of "
            f"{card.context_length} tokens",
            hint=f"use --ctx-size {card.context_length}",
        )


def factor_for(tokens: int, original: int) -> float:
    """The smallest factor that reaches `tokens`, in steps of a half, so that it is easy to say and to repeat."""
    return max(math.ceil(tokens / original / _STEP) * _STEP, 1 + _STEP)


def ways_out(card: ModelCard, entry: CatalogEntry | None, tokens: int, shorter: str) -> str:
    """The hint for a text of `tokens` that is too long: do what `shorter` says, or use YaRN with the factor needed.

    Whether a factor gives right answers is only known where the vendor tested it, so the hint says where nobody did.
    """
    most = farthest(card, entry)
    if most is None or tokens > most.reach:
        return shorter
    factor = min(factor_for(tokens, most.original), most.factor)
    if documented_yarn(card, entry) is not None:
        return f"{shorter}, or use --rope yarn:{factor:g} --ctx-size {tokens}"
    return f"{shorter}, or try --rope yarn:{factor:g} --ctx-size {tokens}, untested by the vendor: check the answers"


def describe_reach(card: ModelCard, entry: CatalogEntry | None) -> str:
    """'8192 tokens, as trained; perhaps up to 16384 with --rope yarn:2, untested by its vendor'."""
    trained = f"{card.context_length} tokens, as trained"
    most = farthest(card, entry)
    if most is None:
        return trained
    reached = f"up to {most.reach} with --rope yarn:{most.factor:g}"
    if documented_yarn(card, entry) is not None:
        return f"{trained}; {reached}"
    return f"{trained}; perhaps {reached}, untested by its vendor"
