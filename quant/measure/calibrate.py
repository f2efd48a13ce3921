"""Collects an importance matrix: runs text through a model and sums the squared inputs of every matrix.

The sums are those of llama-imatrix (llama.cpp tools/imatrix/imatrix.cpp). The same pass collects
the statistics of the routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant.measure.chunks import LEAST_CHUNK, ChunkOptions, Text, chunks, settle_threads
from quant.measure.imatrix import Entry, Imatrix, Routing
from quant.measure.routers import LAST_NODE, Node, RouterCollector
from runtime.base.errors import EngineFailed
from runtime.base.events import Progress
from runtime.base.run import Run


class Collector:
    """Sums the inputs of matrices while `watching`. Call `finish_pass` after each pass through the graph."""

    def __init__(self) -> None:
        self.watching = True
        self._sums: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._routers = RouterCollector()
        # Of one pass: matrices that share their input (query, key and value; gate and up) share the sums, too.
        self._shared: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.int64]]] = {}

    def wants(self, node: Node) -> bool:
        if not self.watching:
            return False
        operation = node.operation
        if operation == "MUL_MAT_ID":
            return True
        if operation == "MUL_MAT" and node.source(0).name.startswith("blk."):
            rows = node.source(1)
            # The rest of a long chunk may be shorter: llama-imatrix leaves it out, and so do we, to have its counts.
            return rows.shape[1] >= LEAST_CHUNK and rows.is_float32
        return self._routers.wants(node)

    def sees(self, node: Node) -> bool:
        """Add a node to the sums; False after the last layer."""
        if node.operation == "MUL_MAT_ID":
            self._experts(node)
        elif node.operation == "MUL_MAT":
            self._dense(node)
        self._routers.sees(node)
        return node.name != LAST_NODE

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

    def _add(self, name: str, sums: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
        if not np.isfinite(sums).all():
            raise EngineFailed(
                f"the input of {name} is not finite, so no importance can be collected",
                hint="use the original weights in BF16 or F32: F16 may overflow",
            )
        if name in self._sums:
            self._sums[name] += sums
            self._counts[name] += counts
        else:
            self._sums[name], self._counts[name] = sums.copy(), counts.copy()

    def finish_pass(self) -> None:
        self._routers.finish_pass()
        self._shared.clear()

    def entries(self) -> dict[str, Entry]:
        return {name: Entry(sums, self._counts[name]) for name, sums in sorted(self._sums.items())}

    def routing(self) -> dict[int, Routing]:
        return self._routers.routing()


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
    options: ChunkOptions,
    run: Run,
) -> Imatrix:
    """Run `texts` through the model at `path`.

    Raises UsageError (too little text), EngineFailed, DoesNotFit, Aborted."""
    from runtime.llama import Observer

    collector = Collector()
    collector.watching = False
    with Observer(path, collector.wants, collector.sees, window=options.context, run=run) as model:
        settle_threads(model, run.threads)
        collector.watching = True
        parts = chunks(model, texts, options)
        total, done = len(parts) * options.context, 0
        for part in parts:
            for count in model.observe(part):
                collector.finish_pass()
                done += count
                run.listen(Progress("collecting", path.name, done, total, "tokens"))
    return Imatrix(
        entries=collector.entries(),
        datasets=tuple(text.name for text in texts),
        chunk_count=len(parts),
        chunk_size=options.context,
        routing=collector.routing(),
        routed_tokens=total if collector.routing() else 0,
    )
