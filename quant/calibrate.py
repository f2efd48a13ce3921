"""Collecting the importance matrix: run text through a model and add up what enters every matrix.

The sums are those of llama-imatrix (llama.cpp tools/imatrix/imatrix.cpp). In the same pass the routers are watched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quant.imatrix import Entry, Imatrix, Routing
from quant.reading import LEAST_CHUNK, Reading, Text, chunks, settle_threads
from runtime.backend import Stop
from runtime.errors import EngineFailed
from runtime.events import Listener, Progress, ignore

_LAST_NODE = "result_norm"  # all layers are done; what follows is the output matrix, which is never collected
# The later of these that a model has is what its experts' outputs are multiplied with (llama.cpp src/llama-graph.cpp,
# build_moe_ffn).
_ROUTER_NODE = re.compile(r"ffn_moe_(logits|probs|weights|weights_softmax|weights_norm|weights_scaled)-(\d+)")
_LAYER = re.compile(r"blk\.(\d+)\.")


class Node(Protocol):
    """A tensor of the graph, as runtime.llama.Node; `shape` is in ggml order, `values` in numpy's."""

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


class Collector:
    """Adds up what it sees while `watching`. `finish_pass` must follow each pass through the graph."""

    def __init__(self) -> None:
        self.watching = True
        self._sums: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._routing: dict[int, Routing] = {}
        # Of one pass: matrices that share their input (query, key and value; gate and up) share the sums, too.
        self._shared: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.int64]]] = {}
        self._chosen: dict[int, NDArray[np.int32]] = {}
        self._weights: dict[int, NDArray[np.float32]] = {}
        self._lengths: dict[int, NDArray[np.float32]] = {}

    def wants(self, node: Node) -> bool:
        if not self.watching:
            return False
        operation = node.operation
        if operation == "MUL_MAT_ID":
            return True
        name = node.name
        if operation == "MUL_MAT" and node.source(0).name.startswith("blk."):
            rows = node.source(1)
            # The rest of a long chunk may be shorter: llama-imatrix leaves it out, and so do we, to have its counts.
            return rows.shape[1] >= LEAST_CHUNK and rows.is_float32
        return name == _LAST_NODE or _ROUTER_NODE.fullmatch(name) is not None

    def sees(self, node: Node) -> bool:
        """Take a node in; False when the layers are through."""
        if node.operation == "MUL_MAT_ID":
            self._experts(node)
        elif node.operation == "MUL_MAT":
            self._dense(node)
        elif node.name == _LAST_NODE:
            return False
        named = _ROUTER_NODE.fullmatch(node.name)
        if named:
            self._router(named[1], int(named[2]), node.values()[0])
        return True

    def _dense(self, node: Node) -> None:
        weight, rows = node.source(0), node.source(1)
        depth, width = weight.shape[2], weight.shape[3]
        key = (rows.identity, depth, width)
        if key not in self._shared:
            x = rows.values()
            batches, heads, count, length = x.shape
            each = np.einsum("bhrc,bhrc->bhc", x, x)
            sums = each.reshape(batches // width, width, heads // depth, depth, length).sum(axis=(0, 2))
            counted = np.array([batches * heads * count // (depth * width)])
            self._shared[key] = sums.reshape(depth * width, length), counted
        self._add(weight.name, *self._shared[key])

    def _experts(self, node: Node) -> None:
        weight, rows, ids = node.source(0), node.source(1), node.source(2)
        experts = weight.shape[2]
        key = (rows.identity, ids.identity, experts)
        chosen = ids.values()[0, 0]
        if key not in self._shared:
            self._shared[key] = _sums_per_expert(rows.values()[0], chosen, experts)
        self._add(weight.name, *self._shared[key])
        layer = _LAYER.match(weight.name)
        if layer and weight.name.endswith(".ffn_down_exps.weight"):
            number = int(layer[1])
            self._routing.setdefault(number, Routing.empty(experts))
            self._chosen[number] = chosen.copy()
            out = node.values()[0]
            self._lengths[number] = np.sqrt(np.einsum("tec,tec->te", out, out))

    def _add(self, name: str, sums: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
        if not np.isfinite(sums).all():
            raise EngineFailed(
                f"what enters {name} is not finite, so nothing can be learned from it",
                hint="use the original weights in BF16 or F32: F16 may overflow",
            )
        if name in self._sums:
            self._sums[name] += sums
            self._counts[name] += counts
        else:
            self._sums[name], self._counts[name] = sums.copy(), counts.copy()

    def _router(self, what: str, layer: int, values: NDArray[np.float32]) -> None:
        if what not in ("logits", "probs"):
            self._weights[layer] = values.copy()
            return
        values = values[0]
        routing = self._routing.setdefault(layer, Routing.empty(values.shape[1]))
        if what == "probs":
            routing.probability[:] += values.sum(axis=0, dtype=np.float64)
        else:
            top = values.argmax(axis=1)
            routing.top_logit[:] += np.bincount(top, values[np.arange(len(top)), top], len(routing.top_logit))

    def finish_pass(self) -> None:
        for layer, chosen in self._chosen.items():
            routing, experts, numbers = self._routing[layer], len(self._routing[layer].selected), chosen.ravel()
            routing.selected[:] += np.bincount(numbers, minlength=experts)
            if layer in self._weights:
                weights = self._weights[layer].ravel()
                routing.weight[:] += np.bincount(numbers, weights, experts)
                routing.output[:] += np.bincount(numbers, weights * self._lengths[layer].ravel(), experts)
        for held in (self._shared, self._chosen, self._weights, self._lengths):
            held.clear()

    def entries(self) -> dict[str, Entry]:
        return {name: Entry(sums, self._counts[name]) for name, sums in sorted(self._sums.items())}

    def routing(self) -> dict[int, Routing]:
        return {layer: self._routing[layer] for layer in sorted(self._routing)}


def _sums_per_expert(
    rows: NDArray[np.float32], chosen: NDArray[np.int32], experts: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sums of squares (experts, columns) and rows summed (experts). `rows` is (tokens, 1 or used, columns): a row for
    each token, or one for each of its experts; `chosen` is (tokens, used).

    Sorted and summed expert by expert: a matrix product would be shorter, but its threads fight with the engine's.
    """
    flat = rows.reshape(-1, rows.shape[2])
    order = np.argsort(chosen, axis=None, kind="stable")
    taken = order if rows.shape[1] == chosen.shape[1] else order // chosen.shape[1]
    counts = np.bincount(chosen.ravel(), minlength=experts)
    sums = np.zeros((experts, rows.shape[2]), np.float32)
    end = 0
    for expert in np.flatnonzero(counts):
        start, end = end, end + counts[expert]
        part = flat[taken[start:end]]
        sums[expert] = np.einsum("rc,rc->c", part, part)
    return sums, counts


def collect(
    path: Path,
    texts: Sequence[Text],
    reading: Reading,
    *,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> Imatrix:
    """Run `texts` through the model at `path`.

    Raises UsageError (too little text), EngineFailed, DoesNotFit, Aborted."""
    from runtime.llama import Observer

    collector = Collector()
    collector.watching = False
    with Observer(path, collector.wants, collector.sees, window=reading.context, stop=stop, listen=listen) as model:
        settle_threads(model, reading.threads)
        collector.watching = True
        parts = chunks(model, texts, reading)
        total, done = len(parts) * reading.context, 0
        for part in parts:
            for count in model.observe(part):
                collector.finish_pass()
                done += count
                listen(Progress("collecting", path.name, done, total, "tokens"))
    return Imatrix(
        entries=collector.entries(),
        datasets=tuple(text.name for text in texts),
        chunk_count=len(parts),
        chunk_size=reading.context,
        routing=collector.routing(),
        routed_tokens=total if collector.routing() else 0,
    )
