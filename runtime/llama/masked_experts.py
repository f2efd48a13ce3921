"""Runs a mixture of experts as if some experts were missing, without writing or reloading a file."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.base.errors import Incompatible
from runtime.base.run import Run
from runtime.engine.backend import Batch
from runtime.llama.graph import GraphNode, Observer
from runtime.llama.native import native

# The values that experts are chosen from (llama.cpp src/llama-graph.cpp, build_moe_ffn). With masked logits the softmax
# shares all probability among the remaining experts, as a router with fewer rows does. The bias must be masked too,
# because it is added after the gate and could select an expert whose gate is 0.
_CHOSEN_FROM = re.compile(r"ffn_moe_(?:logits|probs_biased)-(\d+)")


class MaskedScorer(Observer):
    """A Scorer whose routers choose only among the experts set by `keep`, or among all before that.

    The results equal those of a file without the other experts, up to rounding in the router.
    """

    def __init__(
        self,
        path: Path,
        *,
        window: int,
        metadata: Mapping[str, int] | None = None,
        run: Run | None = None,
    ) -> None:
        """`metadata` overrides integer keys of the file, such as "deepseek2.expert_group_count" or
        "qwen3moe.expert_used_count", as a pruned file would have them."""
        self._metadata = dict(metadata or {})
        self._left_out: dict[int, tuple[int, ...]] = {}
        self._missed: set[int] = set()
        super().__init__(path, self._chooses, self._hide, window=window, run=run)

    def keep(self, kept: Mapping[int, Sequence[int]] | None, experts: int = 0) -> None:
        """From now on layer n chooses among the experts `kept[n]` of its `experts`. Other layers, or all with None,
        choose among all. Raises ValueError for an unknown expert."""
        for layer, numbers in (kept or {}).items():
            if not numbers or not 0 <= min(numbers) <= max(numbers) < experts:
                raise ValueError(f"layer {layer}: {numbers} are not among {experts} experts")
        self._left_out = {
            layer: tuple(sorted(set(range(experts)).difference(numbers))) for layer, numbers in (kept or {}).items()
        }

    def decode(self, batch: Batch) -> None:
        """Raises Incompatible if the engine does not show the routers."""
        self._missed = {layer for layer, numbers in self._left_out.items() if numbers}
        super().decode(batch)
        # The engine may skip a layer that no token reaches.
        if self._missed and batch.outputs:
            raise Incompatible(f"the engine does not show the router of layer {min(self._missed)}: no mask is possible")

    def _chooses(self, node: GraphNode) -> bool:
        found = _CHOSEN_FROM.fullmatch(node.name)
        return found is not None and bool(self._left_out.get(int(found[1])))

    def _hide(self, node: GraphNode) -> bool:
        layer = int(node.name.rpartition("-")[2])
        self._missed.discard(layer)
        if 0 not in node.shape:  # without requested logits, no token reaches the last layer
            values = node.values().copy()
            values[..., list(self._left_out[layer])] = -np.inf
            node.overwrite(values)
        return True

    def _model_params(self, **given: Any) -> Any:
        params = super()._model_params(**given)
        # The list ends with an empty key; the engine reads it while it loads.
        self._overrides = (native.llama_model_kv_override * (len(self._metadata) + 1))()
        for entry, (key, value) in zip(self._overrides, self._metadata.items(), strict=False):
            entry.tag, entry.key = native.LLAMA_KV_OVERRIDE_TYPE_INT, key.encode()
            entry.value.val_i64 = value
        params.kv_overrides = ctypes.cast(self._overrides, type(params.kv_overrides))
        return params
