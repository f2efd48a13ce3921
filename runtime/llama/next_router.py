"""Guesses which experts the next layer will choose: its router applied to this layer's input.

Between two layers the hidden state changes little, so that the guess is mostly right (Eliseev and Mazur, arXiv
2312.17238, section 3.2, do the same with Mixtral). Earlier errors correct it: `runtime.from_disk.lookahead`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.from_disk.lookahead import Lookahead
from runtime.llama.graph import GraphNode, weight_of

_FEW = 16  # tokens; more of them choose most experts of a layer


@dataclass(frozen=True, slots=True)
class _Router:
    """`weights` [experts, width] and `bias` [experts] are views of the model's own tensors.

    `sigmoid`: the bias is added to the sigmoid of the scores, not to their softmax. `identity` is that of the tensor of
    weights, and `distance` the number of nodes from the chosen experts back to the product with it."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    sigmoid: bool
    identity: int
    distance: int


class Routers:
    """The routers of a model, as they are seen in its passes."""

    def __init__(self, layers: int, experts: int) -> None:
        self._experts = experts
        self._known: list[_Router | None] = [None] * layers
        self._lookahead = Lookahead(layers, experts)

    def next_choice(self, index: int, chosen: GraphNode) -> list[int]:
        """The experts that the layer after `index` will probably choose, the likeliest first; [] if nothing is known.

        `chosen` is the node with the experts that the layer at `index` has chosen."""
        used, tokens = chosen.shape[:2]
        inputs = self._inputs(index, chosen)
        router, following = self._known[index], self._known[(index + 1) % len(self._known)]
        if router is not None and inputs is not None and 0 < tokens <= _FEW:
            self._lookahead.met(index, inputs @ router.weights.T)
        if index + 1 == len(self._known) or not tokens:
            return []
        if tokens > _FEW:
            return list(range(self._experts))
        if following is None or inputs is None:
            return []
        scores: NDArray[Any] = self._lookahead.guess(index + 1, inputs @ following.weights.T)
        if following.bias is not None:
            scores = (1 / (1 + np.exp(-scores)) if following.sigmoid else _softmax(scores)) + following.bias
        best = scores.argsort(axis=1)[:, : -used - 1 : -1]
        if tokens == 1:
            likeliest: list[int] = best[0].tolist()
            return likeliest
        counts = np.bincount(best.ravel(), minlength=self._experts)
        return [int(each) for each in np.argsort(-counts, kind="stable") if counts[each]]

    def _inputs(self, index: int, chosen: GraphNode) -> NDArray[np.float32] | None:
        """The inputs of the router at `index`, [tokens, width]; None if its graph is another one than those known."""
        known = self._known[index]
        if known is not None:
            product = chosen.identity
            for _ in range(known.distance):
                product = weight_of(product)
            if weight_of(product) == known.identity:
                same: NDArray[np.float32] = GraphNode(product).source(1).values()[0, 0]
                return same
        found = _router_of(chosen)
        self._known[index], inputs = found or (None, None)
        return inputs


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _router_of(chosen: GraphNode) -> tuple[_Router, NDArray[np.float32]] | None:
    """The router before the node with the chosen experts, and its input [tokens, width].

    The nodes are those of build_moe_ffn in src/llama-graph.cpp: a product with ffn_gate_inp, perhaps a softmax or a
    sigmoid, perhaps the sum with exp_probs_b, the sorted experts."""
    node, bias, sigmoid = chosen.source(0), None, False
    for distance in range(1, 13):
        if node.operation == "MUL_MAT":
            weights, inputs = node.source(0), node.source(1)
            if "ffn_gate_inp" not in weights.name or not weights.is_float32 or not inputs.is_float32:
                break
            router = _Router(weights.values()[0, 0], bias, sigmoid, weights.identity, distance)
            return router, inputs.values()[0, 0]
        if node.operation == "ADD" and "exp_probs_b" in node.source(1).name:
            bias = node.source(1).values()[0, 0, 0]
        sigmoid = sigmoid or node.operation == "UNARY"
        if not node.has_source:
            break
        node = node.source(0)
    return None
