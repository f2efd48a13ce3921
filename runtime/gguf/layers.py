"""A model layer by layer: which bytes every token meets, which belong to routed experts, and its share of the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.gguf.card import ModelCard


@dataclass(frozen=True, slots=True)
class LayerParts:
    """Bytes of weights by ggml type: `always` meet every token, of `routed` a token meets some experts only."""

    always: Mapping[str, int]
    routed: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.always.values()) + sum(self.routed.values())


@dataclass(frozen=True, slots=True)
class ModelParts:
    """`embedding` is read one row per token; `output` is the head, which is the embedding again where a file has no
    head of its own (`tied`: then it takes no memory of its own)."""

    embedding: LayerParts
    layers: tuple[LayerParts, ...]
    output: LayerParts
    tied: bool


def parts(card: ModelCard) -> ModelParts:
    """The tensors of a model by layer. Layers that only predict ahead (MTP) are left out: the engine skips them."""
    always: dict[int, Counter[str]] = {}
    routed: dict[int, Counter[str]] = {}
    embedding: Counter[str] = Counter()
    output: Counter[str] = Counter()
    for tensor in card.tensors:
        if tensor.layer is None:
            place = embedding if tensor.name.startswith("token_embd") else output
        else:
            place = (routed if tensor.is_expert_stack else always).setdefault(tensor.layer, Counter())
        place[tensor.type] += tensor.size
    tied = all(tensor.name != "output.weight" for tensor in card.tensors)
    return ModelParts(
        embedding=LayerParts(embedding, {}),
        layers=tuple(LayerParts(always.get(n, Counter()), routed.get(n, Counter())) for n in range(layer_count(card))),
        output=LayerParts(output + embedding if tied else output, {}),
        tied=tied,
    )


def layer_count(card: ModelCard) -> int:
    """The layers that a token passes through: those that only predict ahead come last and are not counted."""
    return card.layers - card.nextn_layers


def experts_met(card: ModelCard, tokens: int = 1) -> float:
    """The expected share of routed experts that `tokens` tokens together meet, were they chosen at random:
    1 - (1 - used / all) ** tokens."""
    return 1 - (1 - card.experts_used / card.experts) ** tokens if card.experts else 0.0
