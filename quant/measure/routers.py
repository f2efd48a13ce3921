"""Collects the statistics of a mixture's routers while text runs through the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quant.measure.imatrix import Routing
from runtime.base.errors import EngineFailed, UsageError
from runtime.base.run import Run
from runtime.engine.backend import ROWS
from runtime.gguf.tensor_name import parse_name

if TYPE_CHECKING:
    from runtime.llama import Observer

LAST_NODE = "result_norm"  # all layers are done; only the output matrix follows, which is not collected
# A model multiplies the outputs of its experts with the later of these (llama.cpp src/llama-graph.cpp,
# build_moe_ffn).
_ROUTER_NODE = re.compile(r"ffn_moe_(logits|probs|weights|weights_softmax|weights_norm|weights_scaled)-(\d+)")
_DOWN = "ffn_down_exps.weight"
# Texts that are read in one pass side by side: short ones would leave most of a batch empty.
_TOGETHER = 32


class Node(Protocol):
    """A tensor of the graph, as runtime.llama.GraphNode; `shape` is in ggml order, `values` in numpy's."""

    @property
    def identity(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def is_float32(self) -> bool: ...
    def source(self, number: int, /) -> Node: ...
    def values(self) -> NDArray[Any]: ...


class Watcher(Protocol):
    """Observes nodes: `wants` is called before a node is computed, `sees` after it; False from `sees` ends the pass."""

    def wants(self, node: Node) -> bool: ...
    def sees(self, node: Node) -> bool: ...


class RouterCollector:
    """Sums the routers' statistics. Call `finish_pass` after each pass through the graph.

    `top` and `threshold` are k_a and r of TCESS (PreMoe, arXiv 2505.17639, section 3): a token adds its raw logits to
    its `top` best experts, of which only those count whose softmax among these is at least `threshold`. The published
    code has k_a = 1 and no threshold.
    """

    def __init__(self, top: int = 1, threshold: float | None = None) -> None:
        check_tcess(top, threshold)
        self._top, self._threshold = top, threshold
        self._routing: dict[int, Routing] = {}
        self._last: int | None = None  # the last layer with experts, once a pass is through
        # Of one pass:
        self._chosen: dict[int, NDArray[np.int32]] = {}
        self._weights: dict[int, NDArray[np.float32]] = {}
        self._lengths: dict[int, NDArray[np.float32]] = {}

    def wants(self, node: Node) -> bool:
        if node.operation == "MUL_MAT_ID":
            return parse_name(node.source(0).name).part == _DOWN
        name = node.name
        return name == LAST_NODE or (name.startswith("ffn_moe_") and _ROUTER_NODE.fullmatch(name) is not None)

    def sees(self, node: Node) -> bool:
        """Take a node in; False when no router and no expert comes after it."""
        name = node.name
        if name == LAST_NODE:
            return False
        named = _ROUTER_NODE.fullmatch(name)
        if named:
            self._router(named[1], int(named[2]), node.values()[0])
        elif node.operation == "MUL_MAT_ID":
            weight = parse_name(node.source(0).name)
            if weight.layer is not None and weight.part == _DOWN:
                self._outputs(weight.layer, node)
                return weight.layer != self._last
        return True

    def _outputs(self, layer: int, node: Node) -> None:
        self._routing.setdefault(layer, Routing.empty(node.source(0).shape[2]))
        self._chosen[layer] = node.source(2).values()[0, 0].copy()
        out = node.values()[0]
        self._lengths[layer] = np.sqrt(np.einsum("tec,tec->te", out, out))

    def _router(self, what: str, layer: int, values: NDArray[np.float32]) -> None:
        if what not in ("logits", "probs"):
            self._weights[layer] = values.copy()
            return
        values = values[0]
        routing = self._routing.setdefault(layer, Routing.empty(values.shape[1]))
        if what == "probs":
            routing.probability[:] += values.sum(axis=0, dtype=np.float64)
            return
        if layer in self._chosen:  # the engine cut the batch in two: this is the next pass already
            self.finish_pass()
        if not np.isfinite(values).all():
            raise EngineFailed(
                f"the router of layer {layer} gives numbers that are not finite, so no statistics can be collected",
                hint="use weights in BF16 or F32: F16 may overflow",
            )
        experts, logits = top_logits(values, self._top, self._threshold)
        routing.top_logit[:] += np.bincount(experts, logits, len(routing.top_logit))

    def finish_pass(self) -> None:
        for layer, chosen in self._chosen.items():
            routing, experts, numbers = self._routing[layer], len(self._routing[layer].selected), chosen.ravel()
            routing.selected[:] += np.bincount(numbers, minlength=experts)
            if layer in self._weights:
                weights = self._weights[layer].ravel()
                routing.weight[:] += np.bincount(numbers, weights, experts)
                routing.output[:] += np.bincount(numbers, weights * self._lengths[layer].ravel(), experts)
        self._last = max(self._routing, default=None)
        for held in (self._chosen, self._weights, self._lengths):
            held.clear()

    def routing(self) -> dict[int, Routing]:
        """The sums by layer."""
        return {layer: self._routing[layer] for layer in sorted(self._routing)}


class FirstRouter:
    """Takes the logits of the first router that a pass meets, and ends the pass there."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.float32]] = []

    def wants(self, node: Node) -> bool:
        return node.name.startswith("ffn_moe_logits-")

    def sees(self, node: Node) -> bool:
        self._rows.append(node.values()[0, 0].copy())
        return False

    def logits(self) -> NDArray[np.float32]:
        """(tokens, experts), of all passes one after the other."""
        return np.concatenate(self._rows)


class RouterReader:
    """A model with routers, opened to read texts; each is read from an empty cache. Made by `open_router_reader`."""

    def __init__(self) -> None:
        self.watcher: Watcher | None = None
        self.model: Observer

    def wants(self, node: Node) -> bool:
        return self.watcher is not None and self.watcher.wants(node)

    def sees(self, node: Node) -> bool:
        return self.watcher is not None and self.watcher.sees(node)

    def collect(self, texts: Sequence[Sequence[int]], collector: RouterCollector) -> Iterator[int]:
        """Read tokenized `texts`, short ones together; after each pass, how many tokens that were."""
        self.watcher = collector
        try:
            for count in self.model.observe_together(texts):
                collector.finish_pass()
                yield count
        finally:
            self.watcher = None

    def first_logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Returns the first router's logits of each token, (tokens, experts). Only the layers up to it are computed."""
        self.watcher = first = FirstRouter()
        try:
            for _ in self.model.observe(tokens):
                pass
        finally:
            self.watcher = None
        return first.logits()


@contextmanager
def open_router_reader(path: Path, window: int, run: Run) -> Iterator[RouterReader]:
    """Open a model to read texts of at most `window` tokens, with `run.threads` threads or 1.

    Raises EngineFailed, DoesNotFit, Aborted."""
    from runtime.llama import Observer

    reader = RouterReader()
    with Observer(
        path,
        reader.wants,
        reader.sees,
        window=max(window, ROWS),
        sequences=_TOGETHER,
        run=run,
    ) as reader.model:
        yield reader


def check_tcess(top: int, threshold: float | None) -> None:
    """Raise UsageError for invalid settings of TCESS."""
    if top < 1:
        raise UsageError(f"TCESS counts at least the best expert of a token, not the {top} best")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"the threshold of TCESS is a probability between 0 and 1, not {threshold}")


def top_logits(
    logits: NDArray[np.float32], top: int = 1, threshold: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The experts that tokens count for in TCESS and with how much: two arrays of the same length, one entry for each
    token and expert. `logits` is (tokens, experts)."""
    top = min(top, logits.shape[1])
    best = logits.argmax(axis=1)[:, None] if top == 1 else np.argpartition(logits, -top, axis=1)[:, -top:]
    taken = np.take_along_axis(logits, best, axis=1)
    if threshold is None:
        return best.ravel(), taken.ravel()
    shares = np.exp(taken - taken.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    sure = shares >= threshold
    return best[sure], taken[sure]
