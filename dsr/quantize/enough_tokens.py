"""How many tokens of text second moments need, and the stages of rounding. Pure."""

from __future__ import annotations

import math

from quant.gguf.writer import integers
from quant.sources.source import Source

# SmolLM2-135M (1,536 columns) lost no more with 4,096 tokens than with 59,904. Nano lost 8 % more with 2,000 than with
# 8,000 tokens, and 1 % less with 32,000.
_LEAST = 8192
# From that many rows on, an expert's moments are its own, not those of a few tokens.
_ROWS_OF_EXPERT = 1000
# Multiplications of a text that nobody minds: a minute and a half for a processor with 50 billion a second. On text of
# another domain SmolLM2 at Q3_K_M kept 0.60 of the plain loss with 40,000 tokens, and 0.66 with 14,000.
_CHEAP = 4.5e12
# Stages run the text through the model twice and sum two products: five times the work for a token. SmolLM2 at Q3_K_M
# kept 0.51 of the plain loss on text of another domain with 13,600 tokens.
_CHEAP_STAGES = 1.5e12
_FOR_COLUMN = 3  # tokens for each column of the widest matrix, for stages


def enough_tokens(source: Source) -> int:
    """The tokens to read: as many as the widest matrix has columns, because the moments of fewer have no full rank, and
    enough for the experts if they are used evenly. More where they cost little time."""
    return max(_tokens(source, 1, _CHEAP), _LEAST)


def enough_for_stages(source: Source) -> int:
    """The tokens to read for stages; no more than there are moments of."""
    return max(_tokens(source, _FOR_COLUMN, _CHEAP_STAGES), _LEAST)


def _tokens(source: Source, for_column: int, cheap: float) -> int:
    routed = [each for each in source.tensors if each.is_expert_stack and each.slices > 1]
    experts = max((each.slices for each in routed), default=1)
    share = min(_used(source), experts) / experts
    layers = [each for each in source.tensors if each.layer is not None and len(each.shape) > 1]
    widest = max((each.row_length for each in layers), default=0)
    work = sum(each.parameters * (share if each in routed else 1) for each in layers)
    return max(for_column * widest, math.ceil(_ROWS_OF_EXPERT / share), int(cheap / max(work, 1)))


def _used(source: Source) -> int:
    """The experts that a token uses; in the layer that uses fewest, where they differ."""
    key = f"{source.architecture}.expert_used_count"
    found = [min(values) for each in source.metadata if each.key == key and (values := integers(each))]
    return max(1, *found) if found else 1
