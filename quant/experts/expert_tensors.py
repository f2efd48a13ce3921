"""The tensors of a mixture of experts: which layers have routed experts, and which tensors have a slice per expert."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runtime.base.errors import Incompatible
from runtime.gguf.card import layer_count
from runtime.gguf.tensor_name import parse_name

if TYPE_CHECKING:
    from runtime.gguf.card import ModelCard

ROUTER_WEIGHT = "ffn_gate_inp.weight"
_ROUTER, _EXPERTS = "ffn_gate_inp", "ffn_down_exps"
# Tensors with a slice per expert (llama.cpp src/llama-arch.cpp): the stacked experts with their biases and scales, the
# rows of the router, the correction of its choice.
_PER_EXPERT = re.compile(
    r"ffn_(?:gate|up|down|gate_up)_exps\.\w+|ffn_gate_inp\.(?:weight|bias)|exp_probs_b(?:_vl)?(?:\.bias)?"
)
# Experts that are not chosen by a router's rows: chosen by the token, or cut into shared pieces.
_OTHER_ROUTING = re.compile(r"ffn_gate_tid2eid|_chexps\.|ffn_(?:gate|up|down)\.\d+\.")


def routed_layers(card: ModelCard) -> tuple[int, ...]:
    """The layers with a router that every token passes. Raises Incompatible for a dense model."""
    names = [parse_name(tensor.name) for tensor in card.tensors]
    found = [name.layer for name in names if name.layer is not None and name.part == ROUTER_WEIGHT]
    layers = tuple(sorted(layer for layer in found if layer < layer_count(card)))
    if not layers or not card.experts:
        raise Incompatible(
            f"{card.name} is a dense model: it has no experts to choose from",
            hint="use a mixture of experts, such as nano or qwen3:30b-a3b",
        )
    return layers


def expert_layers(card: ModelCard) -> tuple[int, ...]:
    """Returns all layers with routed experts, including MTP layers.

    Raises Incompatible for a dense model, and for experts that are not stored as slices of one tensor.
    """
    routed_layers(card)
    layers: dict[int, list[str]] = {}
    for tensor in card.tensors:
        layer = sliced_layer(tensor.name)
        if layer is not None:
            layers.setdefault(layer, []).append(tensor.name)
        slices = tensor.shape[0 if in_one_row(tensor.name, tensor.shape) else -1]
        if _OTHER_ROUTING.search(tensor.name) or (layer is not None and slices != card.experts):
            raise Incompatible(f"{card.name}: dsr cannot separate the experts in {tensor.name}")
    if not layers or not all(
        {_ROUTER, _EXPERTS} <= {parse_name(name).part.split(".")[0] for name in names} for names in layers.values()
    ):
        raise Incompatible(f"{card.name}: its experts are not stacked in one tensor per layer, with a router")
    return tuple(sorted(layers))


def sliced_layer(name: str) -> int | None:
    """The layer of a tensor with a slice for each routed expert; None for other tensors."""
    named = parse_name(name)
    return named.layer if _PER_EXPERT.fullmatch(named.part) else None


def in_one_row(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of `sliced_layer` has one number for each expert, along its first dimension. Else the last
    dimension counts the experts. ERNIE's correction has the shape (experts, 1)."""
    return len(shape) == 1 or ("exp_probs_b" in name and shape[1:] == (1,))
