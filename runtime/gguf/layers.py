"""Sums the weights of a model by layer: those that every token uses, and those of routed experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.gguf.card import ModelCard


@dataclass(frozen=True, slots=True)
class LayerParts:
    """Bytes of a layer by ggml type. Every token uses all of `always` and only some experts of `routed`."""

    always: Mapping[str, int]
    routed: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.always.values()) + sum(self.routed.values())


@dataclass(frozen=True, slots=True)
class ModelParts:
    """A model's weights by part. A token reads one row of `embedding`. `output` is the head.

    In a `tied` model the head is the embedding and takes no memory of its own."""

    embedding: LayerParts
    layers: tuple[LayerParts, ...]
    output: LayerParts
    tied: bool


def parts(card: ModelCard) -> ModelParts:
    """The weights of a model by layer, without MTP layers, which the engine skips in normal decoding."""
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
    """The number of layers that a token passes through, without the MTP layers at the end."""
    return card.layers - card.nextn_layers


def experts_met(card: ModelCard, tokens: int = 1) -> float:
    """The expected share of routed experts that `tokens` tokens use if chosen at random.

    1 - (1 - used / all) ** tokens."""
    return 1 - (1 - card.experts_used / card.experts) ** tokens if card.experts else 0.0
